package edge

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// jsonCodec is proto3 JSON (64-bit integers are strings, times are RFC 3339). Fields have the names of the contract, and
// lowerCamelCase is understood too; fields without presence are written even where they are zero. What is not the JSON
// of its message, unknown fields included, is MALFORMED_REQUEST.
type jsonCodec struct{ vanguard.JSONCodec }

var _ vanguard.RESTCodec = jsonCodec{}

func newJSONCodec(types vanguard.TypeResolver) vanguard.Codec {
	c := jsonCodec{vanguard.JSONCodec{MarshalOptions: jsonOptions, UnmarshalOptions: protojson.UnmarshalOptions{Resolver: types}}}
	c.MarshalOptions.Resolver = types
	return c
}

// Unmarshal implements vanguard.Codec.
func (c jsonCodec) Unmarshal(data []byte, m proto.Message) error {
	if err := c.JSONCodec.Unmarshal(data, m); err != nil {
		return asConnect(malformedJSON(err, data, m.ProtoReflect().Descriptor()))
	}
	return nil
}

// UnmarshalField implements vanguard.RESTCodec.
func (c jsonCodec) UnmarshalField(data []byte, m proto.Message, field protoreflect.FieldDescriptor) error {
	if err := c.JSONCodec.UnmarshalField(data, m, field); err != nil {
		return asConnect(forward.ErrMalformed.WithViolation(string(field.Name()), "json", "is not the JSON of the field"))
	}
	return nil
}

// asConnect returns an error that the transcoder passes on with its details.
func asConnect(f *fault.Fault) error {
	st := grpcfault.Status(f, fault.Domain)
	e := connect.NewError(connect.Code(st.GetCode()), errors.New(st.GetMessage()))
	for _, d := range st.GetDetails() {
		if ed, err := connect.NewErrorDetail(d); err == nil {
			e.AddDetail(ed)
		}
	}
	return e
}

var (
	jsonPosition = regexp.MustCompile(`\(line (\d+):(\d+)\)`)
	unknownField = regexp.MustCompile(`unknown field "?([^"\s]+)`)
)

// malformedJSON returns what a caller may know of an error of protojson: where it is, and whether the field is unknown
// or its value wrong, but never the value.
func malformedJSON(err error, data []byte, d protoreflect.MessageDescriptor) *fault.Fault {
	f := forward.ErrMalformed.WithText("the body is not the JSON of its message").Because(err)
	text := err.Error()
	at := jsonPosition.FindStringSubmatch(text)
	if at == nil || !json.Valid(data) {
		return f
	}
	line, _ := strconv.Atoi(at[1])
	column, _ := strconv.Atoi(at[2])
	path := fieldPath(data, offsetOf(data, line, column), d)
	switch {
	case path == "":
		return f
	case unknownField.MatchString(text):
		return f.WithViolation(path, "json.unknown_field", "there is no such field")
	default:
		return f.WithViolation(path, "json.value", "the value does not fit the field")
	}
}

// offsetOf turns a position of protojson, a line and a rune in it, both from 1, into bytes.
func offsetOf(data []byte, line, column int) int {
	start := 0
	for range line - 1 {
		i := bytes.IndexByte(data[start:], '\n')
		if i < 0 {
			return len(data)
		}
		start += i + 1
	}
	rest := string(data[start:])
	n := 0
	for i := range rest {
		if n++; n == column {
			return start + i
		}
	}
	return len(data)
}

// fieldPath returns the path of the field at that offset of a JSON object, in the names of the contract as far as it
// knows them: "charge.amount_cents". Positions in lists are left out.
func fieldPath(data []byte, offset int, d protoreflect.MessageDescriptor) string {
	type level struct {
		name   string // of the field that is being read in this object
		object bool
		key    bool // the next token is a key
	}
	var stack []level
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		tok, err := dec.Token()
		if err != nil {
			return ""
		}
		switch delim, ok := tok.(json.Delim); {
		case ok && (delim == '{' || delim == '['):
			stack = append(stack, level{object: delim == '{', key: delim == '{'})
		case ok:
			stack = stack[:len(stack)-1]
			if n := len(stack); n > 0 && stack[n-1].object {
				stack[n-1].key = true
			}
		case len(stack) > 0 && stack[len(stack)-1].object:
			top := &stack[len(stack)-1]
			if top.key {
				top.name, _ = tok.(string)
			}
			top.key = !top.key
		}
		if int(dec.InputOffset()) > offset {
			break
		}
	}
	var names []string
	for _, l := range stack {
		if !l.object || l.name == "" {
			continue
		}
		name := l.name
		if d != nil {
			f := d.Fields().ByJSONName(name)
			if f == nil {
				f = d.Fields().ByTextName(name)
			}
			d = nil
			if f != nil {
				name = string(f.Name())
				if !f.IsMap() {
					d = f.Message()
				}
			}
		}
		names = append(names, name)
	}
	return strings.Join(names, ".")
}

// limitedGzip decompresses up to a limit: a few kilobytes can be gigabytes.
type limitedGzip struct {
	limit int64
	left  int64
	r     gzip.Reader
}

var _ connect.Decompressor = (*limitedGzip)(nil)

// Reset implements connect.Decompressor.
func (g *limitedGzip) Reset(src io.Reader) error {
	g.left = g.limit
	if err := g.r.Reset(src); err != nil {
		return asConnect(forward.ErrMalformed.WithText("the body is not gzip").Because(err))
	}
	return nil
}

// Read implements io.Reader.
func (g *limitedGzip) Read(p []byte) (int, error) {
	if int64(len(p)) > g.left+1 {
		p = p[:g.left+1]
	}
	n, err := g.r.Read(p)
	if g.left -= int64(n); g.left < 0 {
		return 0, asConnect(forward.ErrTooLarge)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, asConnect(forward.ErrMalformed.WithText("the body is not gzip").Because(err))
	}
	return n, err
}

// Close implements io.Closer.
func (g *limitedGzip) Close() error { return g.r.Close() }

func newGzip() connect.Compressor { return gzip.NewWriter(io.Discard) }
