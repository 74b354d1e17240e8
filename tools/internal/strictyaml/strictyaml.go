// Package strictyaml reads settings that people write: one document, of which every key is known. Its errors are one
// line, and speak of the file and not of the program that reads it.
package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ErrMore: the text holds more than one document.
var ErrMore = errors.New("more than one document")

// Decode reads the one document of a text into a struct. An empty text leaves it as it is. It refuses keys that the
// struct does not have, and a second document with ErrMore.
func Decode(text []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(into); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return OneLine(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return ErrMore
	}
	return nil
}

// OneLine writes an error of the YAML package in one line, without the types of Go that a value was read into.
func OneLine(err error) error {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	var said []string
	for _, text := range wrong.Errors {
		text, _, _ = strings.Cut(strings.Join(strings.Fields(text), " "), " in type ")
		if before, _, found := strings.Cut(text, " into "); found { // cannot unmarshal !!map into string
			text = before
		}
		said = append(said, text)
	}
	return errors.New(strings.Join(said, "; "))
}
