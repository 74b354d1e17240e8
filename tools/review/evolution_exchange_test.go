package review_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
	"github.com/concordat-dev/concordat/tools/review/schema/schematest"
)

// An exchange is a message that one side writes, in the text format, and what the other reads of it.
type exchange struct {
	from, sends string
	wire, json  reading
}

// A reading is what a reader gets of a message, in the text format of its own contract.
type reading struct {
	text     string
	verbatim bool // the text is what was sent
	arrives  bool // the reader has all that its contract knows of
	refuses  bool // it gets an error
	forgets  bool // what it hands on is not what was sent
}

var (
	// same: the reader gets what was sent.
	same = reading{verbatim: true, arrives: true}
	// refused: the reader gets an error.
	refused = reading{refuses: true}
	// unset: the reader gets nothing, which its contract reads as the value that was sent.
	unset = reading{arrives: true, forgets: true}
	// packed: the reader gets what was sent, and hands it on in a form that the writer does not read.
	packed = reading{verbatim: true, arrives: true, forgets: true}
)

// known: the reader gets all that its contract knows, under its own names.
func known(text string) reading { return reading{text: text, arrives: true} }

// lost: the reader gets something else than what was sent, or nothing.
func lost(text string) reading { return reading{text: text} }

// compiled is a contract.
type compiled struct {
	image *schema.Image
	// paths are the files of it that were not only imported.
	paths []string
	files map[string]protoreflect.FileDescriptor
}

// compile compiles files; what they import comes from third_party/ and proto/.
func compile(t *testing.T, files map[string]string) *compiled {
	t.Helper()
	root := filepath.Join("..", "..")
	c := schematest.Compile(t, files, &protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, "third_party"), filepath.Join(root, "proto")}})
	return &compiled{image: c.Image(t), paths: slices.Sorted(maps.Keys(files)), files: c.Files}
}

// message makes a message of the first file, by its name.
func (c *compiled) message(name protoreflect.Name) *dynamicpb.Message {
	return dynamicpb.NewMessage(c.files[c.paths[0]].Messages().ByName(name))
}

// text reads a ChargeRequest in the text format.
func (c *compiled) text(t *testing.T, text string) *dynamicpb.Message {
	t.Helper()
	m := c.message("ChargeRequest")
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// happens sends every message of the exchanges from the side that writes it to the other, over the wire and as JSON, and
// calls what the old contract has. It returns how that went: it breaks where nothing arrives from one side, and is at risk
// where only some of it does.
func (e evolution) happens(t *testing.T, before, after *compiled) (wire, inJSON rules.Verdict) {
	wire, inJSON = rules.Safe, rules.Safe
	for _, from := range []string{"old", "new"} {
		writer, reader := before, after
		if from == "new" {
			writer, reader = after, before
		}
		var sent, overWire, asJSON int
		for _, x := range e.exchanges {
			if x.from != from {
				continue
			}
			sent++
			message := writer.text(t, x.sends)
			if x.overWire(t, writer, reader, message) {
				overWire++
			}
			if x.asJSON(t, reader, message) {
				asJSON++
			}
		}
		if sent == 0 {
			t.Errorf("nothing is sent from the %s side", from)
		}
		wire, inJSON = worse(wire, verdict(overWire, sent)), worse(inJSON, verdict(asJSON, sent))
	}
	for path, stream := range methods(before) {
		if now, there := methods(after)[path]; !there || now != stream {
			wire, inJSON = rules.Breaks, rules.Breaks // over REST, too, it is the method that is called
		}
	}
	return wire, inJSON
}

func verdict(arrived, sent int) rules.Verdict {
	switch arrived {
	case sent:
		return rules.Safe
	case 0:
		return rules.Breaks
	default:
		return rules.Risk
	}
}

// methods are the paths of a contract's methods, and how each streams.
func methods(c *compiled) map[string]string {
	paths := map[string]string{}
	for _, file := range c.paths {
		for n := range c.files[file].Services().Len() {
			service := c.files[file].Services().Get(n)
			for m := range service.Methods().Len() {
				method := service.Methods().Get(m)
				paths[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = fmt.Sprint(method.IsStreamingClient(), method.IsStreamingServer())
			}
		}
	}
	return paths
}

// overWire encodes the message and decodes it on the other side, and tells whether it arrives. What arrives can be handed
// on: encoded again by a reader that does not know all of it, it still says all.
func (x exchange) overWire(t *testing.T, writer, reader *compiled, message *dynamicpb.Message) bool {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(message) // in the order of the numbers, as generated code does
	if err != nil {
		t.Fatal(err)
	}
	got := reader.message("ChargeRequest")
	err = proto.Unmarshal(data, got)
	if !x.reads(t, "on the wire", x.wire, reader, got, err) || !x.wire.arrives {
		return false
	}
	again, err := proto.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	back := writer.message("ChargeRequest")
	if err := proto.Unmarshal(again, back); err != nil {
		t.Fatal(err)
	}
	if handedOn := proto.Equal(message, back); handedOn == x.wire.forgets {
		t.Errorf("%s sends {%s}: handed on, it says {%s}", x.from, x.sends, back)
	}
	return true
}

// asJSON does the same in JSON, with readers that pass over names that they do not know. JSON has other readers than
// those that know the contract: where a number stood and now a string does, it does not arrive.
func (x exchange) asJSON(t *testing.T, reader *compiled, message *dynamicpb.Message) bool {
	t.Helper()
	data, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	got := reader.message("ChargeRequest")
	err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, got)
	if !x.reads(t, "in JSON", x.json, reader, got, err) || !x.json.arrives {
		return false
	}
	again, err := protojson.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	written, read := kinds(t, data), kinds(t, again)
	for name, kind := range read {
		if written[name] != kind {
			return false
		}
	}
	return true
}

// reads compares what was read with what was expected, and tells whether anything was read at all.
func (x exchange) reads(t *testing.T, how string, want reading, reader *compiled, got *dynamicpb.Message, err error) bool {
	t.Helper()
	if (err != nil) != want.refuses {
		t.Errorf("%s sends {%s}, %s: %v", x.from, x.sends, how, err)
	}
	if err != nil || want.refuses {
		return false
	}
	text := want.text
	if want.verbatim {
		text = x.sends
	}
	seen := proto.CloneOf(got)
	seen.SetUnknown(nil)
	if !proto.Equal(seen, reader.text(t, text)) {
		t.Errorf("%s sends {%s}, %s: the other side reads {%s}; want {%s}", x.from, x.sends, how, seen, text)
	}
	return true
}

// kinds says of each member of a JSON object what it is.
func kinds(t *testing.T, data []byte) map[string]string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for name, value := range object {
		list[name] = fmt.Sprintf("%T", value)
	}
	return list
}

// example says of the first message that does not arrive what becomes of it; without one, of the first that arrives as
// less than it was.
func (e evolution) example() string {
	less := ""
	for _, x := range e.exchanges {
		for _, how := range []struct {
			name string
			reading
		}{{"", x.wire}, {"JSON: ", x.json}} {
			begin := fmt.Sprintf("%s%s `%s` →", how.name, x.from, x.sends)
			switch {
			case how.forgets && less == "":
				less = begin + " cannot be told from absence"
			case how.arrives:
			case how.refuses:
				return begin + " refused"
			case how.text == "":
				return begin + " nothing"
			default:
				return fmt.Sprintf("%s `%s`", begin, how.text)
			}
		}
	}
	return less
}

// A reader of JSON that refuses what it does not know, as the gateway does and protojson does by itself, is older than no
// writer: servers take a new field before clients send it.
func TestAStrictReaderOfJSONHasToBeUpdatedFirst(t *testing.T) {
	before, after := evolutions[0].contracts(t)
	data, err := protojson.Marshal(after.text(t, `order_id: "X1" coupon: "SPRING"`))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(data, before.message("ChargeRequest")); err == nil || !strings.Contains(err.Error(), "coupon") {
		t.Errorf("a strict reader of the old contract: %v", err)
	}
	if err := protojson.Unmarshal(data, after.message("ChargeRequest")); err != nil {
		t.Errorf("a strict reader of the new contract: %v", err)
	}
}

// The bytes of {order_id: "X1", amount_cents: 150}, which stand in the docs. Programs that were built years ago write and
// read them: this test is never changed.
const goldenBytes = "0a 02 58 31 10 96 01"

func TestTheBytesOfAChargeStayWhatTheyAre(t *testing.T) {
	root := filepath.Join("..", "..")
	const path = "payments/v1/payment_service.proto"
	text, err := os.ReadFile(filepath.Join(root, "proto", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	contract := compile(t, map[string]string{path: string(text)})
	charge := contract.text(t, `order_id: "X1" amount_cents: 150`)
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(charge)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("% x", data); got != goldenBytes {
		t.Errorf("a charge is written as %s; want %s", got, goldenBytes)
	}
	golden, err := hex.DecodeString(strings.ReplaceAll(goldenBytes, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	read := contract.message("ChargeRequest")
	if err := proto.Unmarshal(golden, read); err != nil || !proto.Equal(read, charge) || len(read.GetUnknown()) > 0 {
		t.Errorf("the bytes are read as {%s}, %v", read, err)
	}
	written, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(charge)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, written); err != nil {
		t.Fatal(err)
	}
	const goldenJSON = `{"order_id":"X1","amount_cents":"150"}`
	if compact.String() != goldenJSON {
		t.Errorf("a charge is written in JSON as %s; want %s", &compact, goldenJSON)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "evolving-the-contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, stands := range []string{goldenBytes, goldenJSON} {
		if !strings.Contains(string(page), stands) {
			t.Errorf("the docs do not show %s", stands)
		}
	}
}
