// Package corpus keeps messages as they once were on the wire, each with what it says in JSON: what was written down is
// read for ever, so every later version must decode the same bytes to the same JSON, and encode them again as they
// were. Entries are added, never rewritten; the lab holds those of the baseline against those of the working tree.
package corpus

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// The contract: what is compiled in is what an entry can be of.
	_ "github.com/concordat-dev/concordat/gen/go/auth/v1"
	_ "github.com/concordat-dev/concordat/gen/go/payments/v1"
	_ "github.com/concordat-dev/concordat/gen/go/policy/v1"
	_ "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// Packages are the packages of the contract.
func Packages() []string { return []string{"auth.v1", "payments.v1", "policy.v1", "users.v1"} }

// The two files of an entry: <message>/<name>.binpb, the bytes of the wire, and <message>/<name>.json, what they say.
const (
	wireSuffix = ".binpb"
	jsonSuffix = ".json"
)

// Entry is a frozen message.
type Entry struct {
	// Message is the full name of the message, as "payments.v1.ChargeRequest".
	Message string
	// Name tells it from other entries of the same message.
	Name string
	// Wire is the message in the encoding of protobuf, its fields in the order of their numbers, maps sorted.
	Wire []byte
	// JSON is what it says, in the JSON of protobuf.
	JSON []byte
}

// Load returns the entries in a folder, in the order of their names. A file without the other one of its pair is an
// error.
func Load(dir string) ([]Entry, error) {
	var entries []Entry
	files := map[string]bool{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[path] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for path := range files {
		stem, isWire := strings.CutSuffix(path, wireSuffix)
		if !isWire {
			if stem, isJSON := strings.CutSuffix(path, jsonSuffix); !isJSON || !files[stem+wireSuffix] {
				return nil, fmt.Errorf("%s is no half of an entry", path)
			}
			continue
		}
		e := Entry{Message: filepath.ToSlash(filepath.Dir(path)), Name: filepath.Base(stem)}
		if e.Wire, err = os.ReadFile(filepath.Join(dir, path)); err != nil {
			return nil, err
		}
		if e.JSON, err = os.ReadFile(filepath.Join(dir, stem+jsonSuffix)); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.String(), b.String()) })
	return entries, nil
}

func (e Entry) String() string { return e.Message + "/" + e.Name }

// Check decodes the entry by the messages that are compiled in, and returns how it is read or written otherwise than
// when it was frozen.
func (e Entry) Check() error {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(e.Message))
	if err != nil {
		return fmt.Errorf("the message is gone: %w", err)
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(e.Wire, m); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	same, err := sameJSON(text, e.JSON)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("it says\n%s\nand not\n%s", text, e.JSON)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, e.Wire) {
		return fmt.Errorf("it is encoded as\n%s\nand not\n%s", hex.EncodeToString(again), hex.EncodeToString(e.Wire))
	}
	back := kind.New().Interface()
	if err := protojson.Unmarshal(e.JSON, back); err != nil {
		return fmt.Errorf("read the JSON: %w", err)
	}
	if !proto.Equal(back, m) {
		return errors.New("the JSON is read as another message")
	}
	return nil
}

// sameJSON compares what two texts say: protojson puts space where it likes.
func sameJSON(a, b []byte) (bool, error) {
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return false, fmt.Errorf("the frozen JSON: %w", err)
	}
	return reflect.DeepEqual(x, y), nil
}

// ErrFrozen: there is such an entry, and entries are not rewritten.
var ErrFrozen = errors.New("it is frozen already: entries are added, never rewritten")

// Add writes an entry of a message into a folder. It returns ErrFrozen where there is one of that name.
func Add(dir, name string, m proto.Message) (Entry, error) {
	e := Entry{Message: string(m.ProtoReflect().Descriptor().FullName()), Name: name}
	if name == "" || strings.ContainsAny(name, `/\.`) {
		return e, fmt.Errorf("%q is no name of an entry", name)
	}
	var err error
	if e.Wire, err = (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil {
		return e, err
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return e, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return e, err
	}
	e.JSON = append(indented.Bytes(), '\n')
	if err := e.Check(); err != nil {
		return e, err
	}
	stem := filepath.Join(dir, e.Message, name)
	if err := os.MkdirAll(filepath.Dir(stem), 0o755); err != nil {
		return e, err
	}
	for suffix, data := range map[string][]byte{wireSuffix: e.Wire, jsonSuffix: e.JSON} {
		if err := writeNew(stem+suffix, data); err != nil {
			return e, err
		}
	}
	return e, nil
}

// writeNew writes a file that is not there yet.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrFrozen)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// AddText is Add for a message by its full name, in the JSON of protobuf.
func AddText(dir, message, name string, text []byte) (Entry, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(message))
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", message, err)
	}
	m := kind.New().Interface()
	if err := protojson.Unmarshal(text, m); err != nil {
		return Entry{}, fmt.Errorf("read the message: %w", err)
	}
	return Add(dir, name, m)
}

// Rewritten returns the files of the entries in a folder that are other ones, or none, in another folder. Where the
// first is no folder nothing was frozen yet.
func Rewritten(before, now string) ([]string, error) {
	if _, err := os.Stat(before); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var other []string
	err := fs.WalkDir(os.DirFS(before), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		was, err := os.ReadFile(filepath.Join(before, path))
		if err != nil {
			return err
		}
		is, err := os.ReadFile(filepath.Join(now, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil || !bytes.Equal(was, is) {
			other = append(other, path)
		}
		return nil
	})
	return other, err
}
