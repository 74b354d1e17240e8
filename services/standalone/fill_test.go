package main_test

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// method is one method of the contract.
type method struct {
	protoreflect.MethodDescriptor
	policy *policyv1.MethodPolicy
	// service is who serves it: "auth" for what is in the package auth.v1.
	service string
}

// path is what the method is called by on the wire.
func (m method) path() string { return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()) }

func (m method) streams() bool { return m.IsStreamingClient() || m.IsStreamingServer() }

// changes reports whether a call may change something.
func (m method) changes() bool {
	return m.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// ends reports whether a call ends the account that it is about.
func (m method) ends() bool {
	return slices.Contains([]string{"/users.v1.UserService/DeleteUser", "/users.v1.UserService/EraseUser", "/users.v1.UserService/DisableUser"}, m.path())
}

func (m method) isFor(a policyv1.Audience) bool { return slices.Contains(m.policy.GetAudience(), a) }

// contract returns every method that the program's descriptors say something of, by path.
func contract(t *testing.T) []method {
	t.Helper()
	var all []method
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				md := methods.Get(j)
				p, ok := proto.GetExtension(md.Options(), policyv1.E_Method).(*policyv1.MethodPolicy)
				if ok && p != nil {
					service, _, _ := strings.Cut(string(f.Package()), ".")
					all = append(all, method{md, p, service})
				}
			}
		}
		return true
	})
	slices.SortFunc(all, func(a, b method) int { return strings.Compare(a.path(), b.path()) })
	return all
}

// filler makes messages that keep the rules of their .proto. Its values differ from those of every filler with another
// seed.
type filler struct{ seed int }

func (f filler) uuid() string { return fmt.Sprintf("0199a3c0-0000-7000-8000-%012x", f.seed) }

// request returns a request of the method. A field that names the owner, by the policy, holds the owner.
func (f filler) request(m method, owner string) *dynamicpb.Message {
	msg := f.message(m.Input(), 0)
	if path := m.policy.GetSelf().GetField(); path != "" {
		set(msg, path, owner)
	}
	return msg
}

// set sets a string field by its path.
func set(m protoreflect.Message, path, value string) {
	name, rest, deeper := strings.Cut(path, ".")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if deeper {
		set(m.Mutable(fd).Message(), rest, value)
		return
	}
	m.Set(fd, protoreflect.ValueOfString(value))
}

// deepest is how many messages in messages are filled.
const deepest = 5

func (f filler) message(md protoreflect.MessageDescriptor, depth int) *dynamicpb.Message {
	msg := dynamicpb.NewMessage(md)
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() && o.Fields().Get(0) != fd {
			continue // the first one stands for all
		}
		rules := rulesOf(fd)
		switch {
		case fd.IsMap(): // no rule of ours asks for an entry
		case fd.IsList():
			list := msg.Mutable(fd).List()
			for range rules.GetRepeated().GetMinItems() {
				list.Append(f.value(fd, rules.GetRepeated().GetItems(), depth))
			}
		case fd.HasOptionalKeyword() && !rules.GetRequired():
		case fd.Message() != nil && (depth == deepest || wellKnown(fd.Message()) && !rules.GetRequired()):
		case rules.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE:
		default:
			msg.Set(fd, f.value(fd, rules, depth))
		}
	}
	return msg
}

func rulesOf(fd protoreflect.FieldDescriptor) *validate.FieldRules {
	r, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return r
}

func wellKnown(md protoreflect.MessageDescriptor) bool {
	return strings.HasPrefix(string(md.FullName()), "google.protobuf.")
}

func (f filler) value(fd protoreflect.FieldDescriptor, rules *validate.FieldRules, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(f.text(rules.GetString()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, max(rules.GetBytes().GetMinLen(), rules.GetBytes().GetLen())))
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch fd.Message().FullName() {
		case "google.protobuf.Timestamp":
			return protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1_767_225_600}).ProtoReflect())
		case "google.protobuf.Duration":
			return protoreflect.ValueOfMessage((&durationpb.Duration{Seconds: 1}).ProtoReflect())
		case "google.protobuf.FieldMask":
			return protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: []string{"labels"}}).ProtoReflect())
		}
		return protoreflect.ValueOfMessage(f.message(fd.Message(), depth+1))
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(min(1, values.Len()-1)).Number())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(max(rules.GetInt64().GetGte(), rules.GetSint64().GetGte()))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(max(rules.GetInt32().GetGte(), rules.GetSint32().GetGte()))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rules.GetUint64().GetGte())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rules.GetUint32().GetGte())
	default:
		return fd.Default()
	}
}

// text returns a string that keeps the rules, the empty one where that does.
func (f filler) text(r *validate.StringRules) string {
	switch {
	case r.GetUuid():
		return f.uuid()
	case r.GetEmail():
		return fmt.Sprintf("someone-%d@example.com", f.seed)
	case r.GetConst() != "":
		return r.GetConst()
	case len(r.GetIn()) > 0:
		return r.GetIn()[0]
	case r.GetPattern() != "":
		if re, err := syntax.Parse(r.GetPattern(), syntax.Perl); err == nil {
			return pad(shortest(re), r)
		}
	}
	if r.GetMinLen() == 0 && r.GetLen() == 0 && r.GetMinBytes() == 0 {
		return ""
	}
	return pad(fmt.Sprintf("v%d", f.seed), r)
}

// pad repeats the last character of a text until it is as long as the rules ask, and cuts what is too long.
func pad(s string, r *validate.StringRules) string {
	if s == "" {
		return s
	}
	least := int(max(r.GetMinLen(), r.GetLen(), r.GetMinBytes()))
	if n := least - len(s); n > 0 {
		s += strings.Repeat(s[len(s)-1:], n)
	}
	if most := int(max(r.GetMaxLen(), r.GetLen())); most > 0 && len(s) > most {
		s = s[:most]
	}
	return s
}

// shortest returns a short text that a regular expression matches.
func shortest(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		if i := slices.Index(re.Rune, 'a'); i >= 0 {
			return "a"
		}
		return string(re.Rune[:1])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(shortest(sub))
		}
		return b.String()
	case syntax.OpCapture, syntax.OpPlus, syntax.OpAlternate:
		return shortest(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(shortest(re.Sub[0]), re.Min)
	default: // anchors, and what may be left out
		return ""
	}
}

// secretField is a field with debug_redact, by its path in a message.
type secretField struct {
	path string
	fd   protoreflect.FieldDescriptor
}

// secretFields returns the fields of a message that must never be seen, through the messages that are in it.
func secretFields(md protoreflect.MessageDescriptor) []secretField {
	return secretFieldsBelow(md, "", 0)
}

func secretFieldsBelow(md protoreflect.MessageDescriptor, prefix string, depth int) []secretField {
	var found []secretField
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		path := prefix + string(fd.Name())
		opts, _ := fd.Options().(*descriptorpb.FieldOptions)
		switch {
		case opts.GetDebugRedact():
			found = append(found, secretField{path, fd})
		case fd.Message() != nil && !fd.IsMap() && depth < deepest:
			found = append(found, secretFieldsBelow(fd.Message(), path+".", depth+1)...)
		}
	}
	return found
}

// secretsIn returns what the fields with debug_redact of a message hold.
func secretsIn(m protoreflect.Message) []string {
	var found []string
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		opts, _ := fd.Options().(*descriptorpb.FieldOptions)
		switch {
		case opts.GetDebugRedact():
			found = append(found, v.String())
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				found = append(found, secretsIn(v.List().Get(i).Message())...)
			}
		default:
			found = append(found, secretsIn(v.Message())...)
		}
		return true
	})
	return found
}

// variable is a part of a path template of google.api.http: {user_id} or {name=users/*}.
var variable = regexp.MustCompile(`\{([\w.]+)(?:=([^}]*))?\}`)
