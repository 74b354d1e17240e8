// Package transcript is what a client of one version of the contract saw, written down so that it can be held against
// what a client of another version saw. A message becomes the values of its fields by their names; what is another one
// each time (times, ids that a server makes, tokens) becomes the fact that it was there. It is compiled into the probe
// of each version, so it stands on the standard library and protobuf alone.
package transcript

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Protocol is the version of what the lab and a probe say to each other. A probe of another one is not used.
const Protocol = 1

// What a probe is asked to do.
const (
	// Names asks for the vocabulary alone.
	Names = "names"
	// Calls asks for every call that the probe knows.
	Calls = "calls"
	// Mark asks for the resume tokens of this moment.
	Mark = "mark"
	// Write asks for changes that make events.
	Write = "write"
	// Follow asks for the events after the tokens, up to those of the newest Write.
	Follow = "follow"
)

// Request is what a probe reads from its standard input.
type Request struct {
	Do string `json:"do"`
	// At is where the servers are, each host:port, and what opens them.
	At Place `json:"at"`
	// Seed decides every id and name: two probes with the same one ask for the same.
	Seed string `json:"seed"`
	// Tokens are for Follow: the resume token of each stream, by the stream's method.
	Tokens map[string]string `json:"tokens,omitempty"`
	// Until is for Follow: the subject of the last event of each stream.
	Until map[string]string `json:"until,omitempty"`
}

// Place is where a server is.
type Place struct {
	Auth, Users, Payments string // services, over mutual TLS
	GRPC, HTTP            string // the edge, without TLS
	PKI                   string // the directory of certificates
	AdminCode             string // makes the first administrator
}

// Line is what a probe writes to its standard output: one field of it.
type Line struct {
	Protocol   int               `json:"protocol,omitempty"`
	Vocabulary []string          `json:"vocabulary,omitempty"` // see the function of that name
	Call       *Call             `json:"call,omitempty"`
	Event      *Event            `json:"event,omitempty"`
	Tokens     map[string]string `json:"tokens,omitempty"` // of Mark
	Until      map[string]string `json:"until,omitempty"`  // of Write
}

// Call is one call and how it went.
type Call struct {
	// Step names the call; two transcripts are compared step by step.
	Step string `json:"step"`
	// Kind is unary, server stream, client stream, both ways or REST.
	Kind string `json:"kind"`
	// Method is the method of the contract: "package.Service/Method".
	Method string `json:"method"`
	// Problem says why the call did not go as it should have. Empty where it did.
	Problem string `json:"problem,omitempty"`
	// Saw is everything that came back.
	Saw []Entry `json:"saw,omitempty"`
}

// Event is an event of a stream.
type Event struct {
	Stream string  `json:"stream"`
	Token  string  `json:"token"` // to resume after it
	Saw    []Entry `json:"saw"`
}

// Entry is one value of a message.
type Entry struct {
	// Path is where it is: the names of the fields, and where they repeat the index or key.
	Path string `json:"path"`
	// Fields are the full names of all fields on the path.
	Fields []string `json:"fields"`
	// Value is the value as text. An enum's is the full name of the value, or # and the number where that has no name.
	Value string `json:"value"`
}

// Keep says what of a value is written down.
type Keep int

const (
	// Shape keeps of times, ids made by servers and tokens only that they are there.
	Shape Keep = iota
	// Exact keeps all but tokens.
	Exact
)

// Of returns the values of a message below a name, in the order of their paths. Unknown fields are left out.
func Of(name string, m proto.Message, keep Keep) []Entry {
	entries := message(nil, name, nil, m.ProtoReflect(), keep)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries
}

func message(entries []Entry, path string, fields []string, m protoreflect.Message, keep Keep) []Entry {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Any":
		value := "<" + string(m.Descriptor().Name()) + ">"
		if keep == Exact {
			text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
			value = base64.StdEncoding.EncodeToString(text)
		}
		return append(entries, Entry{path, fields, value})
	}
	if len(fields) > 0 { // that it is there, even where it is empty
		entries = append(entries, Entry{path, fields, "{}"})
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		below := path + "." + string(fd.Name())
		on := append(slices.Clone(fields), string(fd.FullName()))
		switch {
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entries = value(entries, fmt.Sprintf("%s[%q]", below, k.String()), on, fd.MapValue(), v, keep)
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				entries = value(entries, fmt.Sprintf("%s[%04d]", below, i), on, fd, v.List().Get(i), keep)
			}
		default:
			entries = value(entries, below, on, fd, v, keep)
		}
		return true
	})
	return entries
}

// uuid matches what a server makes an id of.
var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// opaque reports whether a field holds a text that says nothing to a client, and is another one each time.
func opaque(fd protoreflect.FieldDescriptor) bool {
	name := string(fd.Name())
	switch fd.Kind() {
	case protoreflect.BytesKind:
		return true
	case protoreflect.StringKind:
		return strings.HasSuffix(name, "_token") || name == "etag" || fd.Parent().Name() == "Jwk" && (name == "x" || name == "kid")
	}
	return false
}

func value(entries []Entry, path string, fields []string, fd protoreflect.FieldDescriptor, v protoreflect.Value, keep Keep) []Entry {
	var text string
	switch {
	case fd.Message() != nil:
		return message(entries, path, fields, v.Message(), keep)
	case fd.Enum() != nil:
		text = fmt.Sprintf("#%d", v.Enum())
		if known := fd.Enum().Values().ByNumber(v.Enum()); known != nil {
			text = string(known.FullName())
		}
	case opaque(fd):
		text = "<opaque>"
	case keep == Shape && fd.Kind() == protoreflect.StringKind && uuid.MatchString(v.String()):
		text = "<uuid>"
	default:
		text = fmt.Sprint(v.Interface())
	}
	return append(entries, Entry{path, fields, text})
}

// Vocabulary returns the full names of every field, enum value and method of some packages that is compiled in, sorted.
func Vocabulary(packages ...string) []string {
	names := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if slices.Contains(packages, string(f.Package())) {
			addEnums(names, f.Enums())
			addMessages(names, f.Messages())
			addMethods(names, f.Services())
		}
		return true
	})
	return slices.Sorted(maps.Keys(names))
}

func addMessages(names map[string]bool, messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			names[string(m.Fields().Get(j).FullName())] = true
		}
		addEnums(names, m.Enums())
		addMessages(names, m.Messages())
	}
}

func addEnums(names map[string]bool, enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		for j := range enums.Get(i).Values().Len() {
			names[string(enums.Get(i).Values().Get(j).FullName())] = true
		}
	}
}

func addMethods(names map[string]bool, services protoreflect.ServiceDescriptors) {
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			names[string(services.Get(i).Methods().Get(j).FullName())] = true
		}
	}
}
