package server_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
)

// TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller plants a secret wherever grpc-go would repeat it, twice, since the second answer
// is an index of the first; a call after them shows that both ends have the same table of headers still.
func TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller(t *testing.T) {
	h, address := onPort(t, echo.Handlers{})
	const canary = "c4n4ry"
	for name, tc := range map[string]struct {
		change map[string]string // of the headers of a good call
		code   string
		text   string
	}{
		"a timeout":            {map[string]string{"grpc-timeout": canary}, "13", "malformed grpc-timeout: ***"},
		"binary metadata":      {map[string]string{canary + "-bin": canary + "!"}, "13", "malformed binary metadata ***"},
		"much of it":           {map[string]string{"x-bin": canary + strings.Repeat("!", 900)}, "13", "malformed binary metadata ***"},
		"more than a frame":    {map[string]string{"x-bin": canary + strings.Repeat("\xff", 12_000)}, "13", "malformed binary metadata ***"},
		"a content type":       {map[string]string{"content-type": canary}, "3", "invalid gRPC request content-type ***"},
		"a method of HTTP":     {map[string]string{":method": canary}, "13", "Received a HEADERS frame with :method ***"},
		"a compression":        {map[string]string{"grpc-encoding": canary}, "12", "grpc: Decompressor is not installed for grpc-encoding ***"},
		"a name of a method":   {map[string]string{":path": "/" + canary}, "12", "there is no such method"},
		"what needs no coding": {map[string]string{"grpc-timeout": "~~~~" + canary}, "13", "malformed grpc-timeout: ***"},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, h, address)
			refused := func(stream uint32) map[string]string {
				t.Helper()
				header := map[string]string{":method": "POST", ":scheme": "https", ":path": echo.Public, ":authority": "test", "content-type": "application/grpc"}
				maps.Copy(header, tc.change)
				w.block.Reset()
				for _, pseudo := range []bool{true, false} {
					for name, value := range header {
						if strings.HasPrefix(name, ":") == pseudo {
							if err := w.hpack.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				if err := w.headers(stream, w.block.Bytes()); err != nil {
					t.Fatal(err)
				}
				a := w.end(stream)
				if got := a.fields["grpc-message"]; a.fields["grpc-status"] != tc.code || !strings.HasPrefix(got, tc.text) {
					t.Fatalf("answered %+v, want %s %q", a, tc.code, tc.text)
				}
				delete(a.fields, "x-request-id")
				delete(a.fields, "grpc-status-details-bin") // with the id; what it says is ours
				for name, value := range a.fields {
					if strings.Contains(name+value, "4n4") {
						t.Errorf("the answer says %s: %s", name, value)
					}
				}
				return a.fields
			}
			first := refused(1)
			if again := refused(3); !maps.Equal(again, first) {
				t.Errorf("the second time: %v, want %v", again, first)
			}
			w.call(5, echo.Public, message(false, nil)).want(t, codes.OK)
		})
	}
}

// TestMaskingKeepsTheTableOfHeadersAndEveryOtherByte has the blocks of grpc-go's encoder pass in pieces of any size, for clients with
// tables of several sizes.
func TestMaskingKeepsTheTableOfHeadersAndEveryOtherByte(t *testing.T) {
	random := make([]byte, 6000)
	_, _ = rand.Read(random)
	noise := base64.StdEncoding.EncodeToString(random)
	masked := func(text, rest string) [2]string {
		return [2]string{text + rest, text + strings.Repeat("*", len(rest))}
	}
	same := func(text string) [2]string { return [2]string{text, text} }
	messages := [][2]string{ // what grpc-go says, and what the client is to see
		masked("malformed grpc-timeout: ", `transport: timeout unit is not recognized: "x"`),
		same(""),
		masked("malformed grpc-timeout: ", `transport: timeout unit is not recognized: "x"`),
		same("not malformed grpc-timeout: x"),
		same("malformed grpc-timeout"),
		masked("invalid gRPC request content-type ", noise[:300]),
		masked("malformed binary metadata ", noise[:3000]),
		masked("malformed binary metadata ", strings.Repeat("%FF", 1000)), // which a Huffman code would make longer
		same(noise[:2000]),
		masked("invalid gRPC request content-type ", noise[:300]),
		masked("malformed method name: ", `""`),
		masked("Received a HEADERS frame with :method ", noise[:1]),
		masked("grpc: Decompressor is not installed for grpc-encoding ", noise),
		masked("malformed binary metadata ", strings.Repeat("{", 40_000)),
		masked("malformed binary metadata ", strings.Repeat("{", 40_000)),
	}
	small := messages[:len(messages)-3]
	for _, m := range small {
		text, _, _ := strings.Cut(m[1], "*")
		for _, last := range []string{"", "_", "!", "~", "\t"} { // which share all whole bytes of a Huffman code, and are not the text
			small = append(small, same(strings.TrimRight(text, " ")+last))
		}
	}
	for _, table := range []uint32{0, 100, 4096, 1 << 20} {
		maskingKeeps(t, table, small, 1, 2, 8, 9, 10, 1000, 1<<15)
		maskingKeeps(t, table, messages, 1<<14, 1<<14+8, 1<<15, 1<<20)
	}
}

func maskingKeeps(t *testing.T, table uint32, messages [][2]string, sizes ...int) {
	t.Helper()
	id := func(i int) string { return fmt.Sprintf("0199a3c0-0000-7000-8000-%012d", i) }
	var wire, block bytes.Buffer
	framer := http2.NewFramer(&wire, nil)
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSizeLimit(table)
	encoder.SetMaxDynamicTableSize(table)
	headers := func(stream uint32, end bool, fields ...string) {
		block.Reset()
		for i := 0; i < len(fields); i += 2 {
			if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
				t.Fatal(err)
			}
		}
		for first := true; first || block.Len() > 0; first = false {
			part := block.Next(1 << 14)
			var err error
			if first {
				err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: end, EndHeaders: block.Len() == 0})
			} else {
				err = framer.WriteContinuation(stream, block.Len() == 0, part)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		stream := uint32(2*i + 1)
		if i%2 == 1 {
			headers(stream, false, ":status", "200", "content-type", "application/grpc", "x-request-id", id(i))
			if err := framer.WriteData(stream, false, []byte("malformed grpc-timeout: of a message")); err != nil {
				t.Fatal(err)
			}
			headers(stream, true, "grpc-status", "13", "grpc-message", m[0], "x-request-id", id(i))
			continue
		}
		headers(stream, true, ":status", "400", "content-type", "application/grpc", "grpc-status", "13", "grpc-message", m[0])
	}
	for _, size := range sizes {
		sent, passed := wire.Bytes(), bytes.Buffer{}
		pass := server.Answers()
		for len(sent) > 0 {
			n := min(size, len(sent))
			piece := bytes.Clone(sent[:n])
			passed.Write(pass(piece))
			if !bytes.Equal(piece, sent[:n]) {
				t.Fatal("what was to be written is changed")
			}
			clear(piece) // it is the writer's again
			sent = sent[n:]
		}
		reader := http2.NewFramer(nil, &passed)
		reader.ReadMetaHeaders = hpack.NewDecoder(table, nil)
		reader.SetMaxReadFrameSize(1 << 14)
		if f, err := reader.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
			t.Fatalf("first comes %v, %v", f, err)
		}
		for i, m := range messages {
			for over := false; !over; {
				f, err := reader.ReadFrame()
				if err != nil {
					t.Fatalf("a table of %d, pieces of %d, message %d: %v", table, size, i, err)
				}
				switch f := f.(type) {
				case *http2.DataFrame:
					if string(f.Data()) != "malformed grpc-timeout: of a message" {
						t.Fatalf("a message became %q", f.Data())
					}
				case *http2.MetaHeadersFrame:
					over = f.StreamEnded()
					for _, field := range f.RegularFields() {
						want, ok := map[string]string{"grpc-message": m[1], "grpc-status": "13", "content-type": "application/grpc",
							"x-request-id": id(i)}[field.Name]
						if !ok || field.Value != want {
							t.Fatalf("a table of %d, pieces of %d, message %d: %s is %.90q, want %.90q", table, size, i, field.Name, field.Value, want)
						}
					}
				}
			}
		}
		if passed.Len() > 0 {
			t.Fatalf("%d bytes too many", passed.Len())
		}
	}
}

// refusedTimeout is the answer to a malformed grpc-timeout: a block of headers that ends with the text.
func refusedTimeout(t *testing.T) []byte {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":status", Value: "400"}, {Name: "grpc-message", Value: "malformed grpc-timeout: " + strings.Repeat("1", 200)}} {
		if err := encoder.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	return block.Bytes()
}

func TestMaskingLeavesWhatIsNotTheEndOfACallOrCannotBeRead(t *testing.T) {
	block := refusedTimeout(t)
	frame := func(p http2.HeadersFrameParam) []byte {
		var wire bytes.Buffer
		p.StreamID, p.EndHeaders = 1, true
		if err := http2.NewFramer(&wire, nil).WriteHeaders(p); err != nil {
			t.Fatal(err)
		}
		return wire.Bytes()
	}
	end := frame(http2.HeadersFrameParam{BlockFragment: block, EndStream: true})
	if bytes.Equal(server.Answers()(end), end) {
		t.Fatal("the answer is not masked")
	}
	whole := map[string][]byte{
		"the first headers of a call": frame(http2.HeadersFrameParam{BlockFragment: block}),
		"padding":                     frame(http2.HeadersFrameParam{BlockFragment: block, EndStream: true, PadLength: 0x82}), // bytes that HPACK would take for whole fields
		"a priority":                  frame(http2.HeadersFrameParam{BlockFragment: block, EndStream: true, Priority: http2.PriorityParam{StreamDep: 0x2828282, Exclusive: true, Weight: 0x82}}),
		"an endless number":           frame(http2.HeadersFrameParam{BlockFragment: bytes.Repeat([]byte{0xff}, 40), EndStream: true}),
	}
	for cut := range len(block) {
		whole[fmt.Sprintf("%d bytes of it", cut)] = frame(http2.HeadersFrameParam{BlockFragment: block[:cut], EndStream: true})
	}
	for name, sent := range whole {
		if got := server.Answers()(sent); !bytes.Equal(got, sent) {
			t.Errorf("%s: %q became %q", name, sent, got)
		}
	}
}

// goodAnswer is what ends a good call, and its message.
func goodAnswer(tb testing.TB) []byte {
	tb.Helper()
	var wire, block bytes.Buffer
	framer, encoder := http2.NewFramer(&wire, nil), hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message"}, {Name: "x-request-id", Value: "0199a3c0"}} {
		if err := encoder.WriteField(f); err != nil {
			tb.Fatal(err)
		}
	}
	err := errors.Join(framer.WriteData(1, false, make([]byte, 100)),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	if err != nil {
		tb.Fatal(err)
	}
	return wire.Bytes()
}

func TestMaskingTakesNothingOfAGoodCall(t *testing.T) {
	pass, wire := server.Answers(), goodAnswer(t)
	if n := testing.AllocsPerRun(100, func() { pass(wire) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAnswers is what the masking costs a good call.
func BenchmarkAnswers(b *testing.B) {
	pass, wire := server.Answers(), goodAnswer(b)
	for b.Loop() {
		pass(wire)
	}
}
