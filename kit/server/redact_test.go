package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// treasury returns a message whose fields are secrets of each kind, and text beside them that is none.
func treasury(t *testing.T, text string) proto.Message {
	t.Helper()
	type field = descriptorpb.FieldDescriptorProto
	number := int32(0)
	of := func(name string, typ descriptorpb.FieldDescriptorProto_Type, secret bool, change ...func(*field)) *field {
		number++
		f := &field{Name: proto.String(name), Number: proto.Int32(number), Type: typ.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if secret {
			f.Options = &descriptorpb.FieldOptions{DebugRedact: proto.Bool(true)}
		}
		for _, c := range change {
			c(f)
		}
		return f
	}
	many := func(f *field) { f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum() }
	named := func(name string) func(*field) {
		return func(f *field) { f.TypeName = proto.String(".treasury." + name) }
	}
	const (
		str, raw, msg = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		num, yes      = descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_BOOL
	)
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("treasury.proto"), Package: proto.String("treasury"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Card"), Field: []*field{of("holder", str, false), of("pin", str, true)}},
			{
				Name: proto.String("Treasury"),
				Field: []*field{
					of("plain", str, false), of("text", str, true), of("bytes", raw, true), of("number", num, true), of("flag", yes, true), of("short", str, true),
					of("list", str, true, many), of("map", msg, true, many, named("Treasury.MapEntry")), of("card", msg, false, named("Card")),
					of("cards", msg, false, many, named("Card")), of("whole", msg, true, named("Card")),
				},
				NestedType: []*descriptorpb.DescriptorProto{{
					Name: proto.String("MapEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
					Field: []*field{
						{Name: proto.String("key"), Number: proto.Int32(1), Type: str.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
						{Name: proto.String("value"), Number: proto.Int32(2), Type: str.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
					},
				}},
			},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(fd.Messages().ByName("Treasury"))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSecretsOfAMessageAreFoundWhereverTheyStand(t *testing.T) {
	m := treasury(t, `plain: "in the open" text: "of a text" bytes: "of bytes" number: 770177 flag: true short: "abc"
		list: "first of a list" list: "second of a list" map { key: "key of a map" value: "value of a map" }
		card { holder: "holder of a card" pin: "pin of a card" } cards { holder: "holder in a list" pin: "pin in a list" }
		whole { holder: "holder of a secret" pin: "pin of a secret" }`)
	want := []string{
		"of a text", "of bytes", "770177", "first of a list", "second of a list", "key of a map", "value of a map", "pin of a card", "pin in a list",
		"holder of a secret", "pin of a secret",
	}
	got := secretsOf(&call{}, m)
	if !slices.IsSortedFunc(got, func(a, b string) int { return len(b) - len(a) }) {
		t.Errorf("the longest do not come first: %q", got)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	clean := cleanerOf(func() []string { return secretsOf(&call{}, m) })
	text := clean(fmt.Sprint("cannot store ", prototext.Format(m)))
	for _, secret := range want {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %s", secret, text)
		}
	}
	for _, open := range []string{"in the open", "holder of a card", "holder in a list", "true", "abc"} {
		if !strings.Contains(text, open) {
			t.Errorf("%q, which is no secret or too short to be looked for, is not in %s", open, text)
		}
	}
}

// What would take long to look through is not looked through, and nothing of it is told.
func TestOfAMessageWithTooManySecretsNothingIsTold(t *testing.T) {
	for n, want := range map[int]string{maxSecrets: "not one of these", maxSecrets + 1: redacted} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "list: \"secret %d\" ", i)
		}
		m := treasury(t, text.String())
		if got := cleanerOf(func() []string { return secretsOf(&call{}, m) })("not one of these"); got != want {
			t.Errorf("of %d secrets: %q, want %q", n, got, want)
		}
	}
}
