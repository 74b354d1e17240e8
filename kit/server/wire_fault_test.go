package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// onPort has a Harness serve on a port of the loopback interface and returns the address.
func onPort(t *testing.T, handlers echo.Handlers, options ...func(*kittest.Options)) (*kittest.Harness, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, func(o *kittest.Options) { o.Listener = l })
	return kittest.Start(t, handlers.Register, options...), l.Addr().String()
}

// wire is an HTTP/2 connection on which a test says what it wants, with a good certificate.
type wire struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	reader *hpack.Decoder
	window map[uint32]int64 // what may be sent, by stream; 0 is the connection
}

// answer is how a stream, or with it the connection, ended.
type answer struct {
	fields map[string]string
	reset  http2.ErrCode // of the stream; zero where it was not reset
	err    error         // of the connection
}

func dialWire(t *testing.T, h *kittest.Harness, address string) *wire {
	t.Helper()
	conn, err := tls.Dial("tcp", address, h.Identity("orders").ClientTLS("test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, conn: conn, framer: http2.NewFramer(conn, conn), window: map[uint32]int64{0: 65535}}
	w.hpack = hpack.NewEncoder(&w.block)
	w.reader = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := w.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return w
}

// open opens a stream. It returns the error of the connection, which a server may close while it is written to.
func (w *wire) open(stream uint32, path string, more ...string) error {
	w.block.Reset()
	fields := append([]string{":method", "POST", ":scheme", "https", ":path", path, ":authority", "test",
		"content-type", "application/grpc", "te", "trailers"}, more...)
	for i := 0; i < len(fields); i += 2 {
		if err := w.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return w.headers(stream, w.block.Bytes())
}

// headers sends a block of headers in as many frames as it needs.
func (w *wire) headers(stream uint32, block []byte) error {
	const frame = 16 << 10
	w.window[stream] = 65535
	first, rest := block[:min(frame, len(block))], block[min(frame, len(block)):]
	if err := w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(rest) == 0}); err != nil {
		return err
	}
	for len(rest) > 0 {
		n := min(frame, len(rest))
		if err := w.framer.WriteContinuation(stream, len(rest) == n, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// send sends bytes as the server gives room for them and ends the stream.
func (w *wire) send(stream uint32, data []byte) (answer, bool) {
	for len(data) > 0 {
		room := min(w.window[0], w.window[stream], 16<<10, int64(len(data)))
		if room == 0 {
			if a, over := w.next(stream); over {
				return a, true
			}
			continue
		}
		if err := w.framer.WriteData(stream, false, data[:room]); err != nil {
			return answer{err: err}, true
		}
		w.window[0] -= room
		w.window[stream] -= room
		data = data[room:]
	}
	if err := w.framer.WriteData(stream, true, nil); err != nil {
		return answer{err: err}, true
	}
	return answer{}, false
}

// next reads one frame, and reports whether the stream is over.
func (w *wire) next(stream uint32) (answer, bool) {
	f, err := w.framer.ReadFrame()
	if err != nil {
		return answer{err: err}, true
	}
	switch f := f.(type) {
	case *http2.WindowUpdateFrame:
		w.window[f.StreamID] += int64(f.Increment)
	case *http2.PingFrame:
		if !f.IsAck() {
			if err := w.framer.WritePing(true, f.Data); err != nil {
				return answer{err: err}, true
			}
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if err := w.framer.WriteSettingsAck(); err != nil {
				return answer{err: err}, true
			}
		}
	case *http2.GoAwayFrame:
		return answer{err: fmt.Errorf("the connection goes away: %v", f.ErrCode)}, true
	case *http2.RSTStreamFrame:
		if f.StreamID == stream {
			return answer{reset: f.ErrCode}, true
		}
	case *http2.HeadersFrame:
		id, ended, block := f.StreamID, f.StreamEnded(), bytes.Clone(f.HeaderBlockFragment())
		for whole := f.HeadersEnded(); !whole; {
			more, err := w.framer.ReadFrame()
			if err != nil {
				return answer{err: err}, true
			}
			block = append(block, more.(*http2.ContinuationFrame).HeaderBlockFragment()...) // ReadFrame takes no other
			whole = more.(*http2.ContinuationFrame).HeadersEnded()
		}
		fields, err := w.reader.DecodeFull(block)
		if err != nil {
			w.t.Fatal(err)
		}
		if id == stream && ended {
			a := answer{fields: map[string]string{}}
			for _, field := range fields {
				a.fields[field.Name] = field.Value
			}
			return a, true
		}
	}
	return answer{}, false
}

// call opens a stream, sends the bytes and returns how it ended.
func (w *wire) call(stream uint32, path string, body []byte, more ...string) answer {
	if err := w.open(stream, path, more...); err != nil {
		return answer{err: err}
	}
	if a, over := w.send(stream, body); over {
		return a
	}
	return w.end(stream)
}

func (w *wire) end(stream uint32) answer {
	for {
		if a, over := w.next(stream); over {
			return a
		}
	}
}

// want fails the test unless the stream ended with the code.
func (a answer) want(t *testing.T, code codes.Code) {
	t.Helper()
	if a.fields == nil || a.fields["grpc-status"] != strconv.Itoa(int(code)) {
		t.Fatalf("ended with %+v, want the status %v", a, code)
	}
}

// status returns the status of the answer with its details.
func (a answer) status(t *testing.T) *spb.Status {
	t.Helper()
	var st spb.Status
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(a.fields["grpc-status-details-bin"], "="))
	if err == nil {
		err = proto.Unmarshal(raw, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &st
}

// reason returns the reason among the details of the status, "" where there are none.
func (a answer) reason(t *testing.T) string {
	t.Helper()
	st := a.status(t)
	if len(st.GetDetails()) == 0 {
		return ""
	}
	return grpcfault.FromStatus(st).Reason()
}

// message frames bytes as gRPC does.
func message(compressed bool, body []byte) []byte {
	framed := make([]byte, 5, 5+len(body))
	if compressed {
		framed[0] = 1
	}
	binary.BigEndian.PutUint32(framed[1:], uint32(len(body)))
	return append(framed, body...)
}

func zipped(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encoded(t *testing.T, text string) []byte {
	t.Helper()
	b, err := proto.Marshal(echo.Message(text, ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatNeverReachesAHandlerIsRefusedAndLoggedAsTheCallersFault(t *testing.T) {
	var handled atomic.Int64
	h, address := onPort(t, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		handled.Add(1)
		return req, nil
	}, Chat: func(s grpc.ServerStream) error {
		for {
			if err := s.RecvMsg(echo.Message("", "")); err != nil {
				return err
			}
		}
	}})
	hi := encoded(t, "hi")
	declared := append([]byte{0}, binary.BigEndian.AppendUint32(nil, 5<<20)...)
	for name, tc := range map[string]struct {
		path   string
		body   []byte
		header []string
		code   codes.Code
		logged string
		told   string // where the answer is ours and not grpc-go's
	}{
		"an escape in the path":     {"/echo.v1.EchoService/%50ublic", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"an escaped slash":          {"/echo.v1.EchoService%2FPublic", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"a query":                   {echo.Public + "?x=1", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"no slash in front":         {echo.Public[1:], message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"no slash between":          {"/echo.v1.EchoService", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"slashes alone":             {"//", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"one slash":                 {"/", message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"a slash too many":          {"/" + echo.Public, message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"another case":              {strings.ToLower(echo.Public), message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"a climb":                   {"/x/.." + echo.Public, message(false, hi), nil, codes.Unimplemented, "UNIMPLEMENTED", "UNIMPLEMENTED"},
		"bytes that are no message": {echo.Public, message(false, []byte{0xff, 0xff, 0xff}), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"no message":                {echo.Public, nil, nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a message that is cut off": {echo.Public, message(false, hi)[:6], nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a message of 5 MiB":        {echo.Public, append(declared, hi...), nil, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"a message beyond the size of the method":        {echo.Packed, message(false, encoded(t, strings.Repeat("x", 1000))), nil, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"one that is only announced":                     {echo.Packed, []byte{0, 0, 0, 0x03, 0xe9}, nil, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"the same compressed":                            {echo.Packed, message(true, zipped(t, encoded(t, strings.Repeat("x", 1000)))), []string{"grpc-encoding", "gzip"}, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"two messages":                                   {echo.Public, append(message(false, hi), message(false, hi)...), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a stream that is cut off in its second message": {echo.Chat, append(message(false, hi), message(false, hi)[:6]...), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a second message of 5 MiB":                      {echo.Chat, append(message(false, hi), declared...), nil, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"an unknown frame":                               {echo.Public, append([]byte{7}, message(false, hi)[1:]...), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"compressed by nothing":                          {echo.Public, message(true, hi), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"compressed, but not":                            {echo.Public, message(true, hi), []string{"grpc-encoding", "gzip"}, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a time that was over on the way":                {echo.Public, message(false, hi), []string{"grpc-timeout", "1n"}, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"},
		"an unknown compression":                         {echo.Public, message(true, hi), []string{"grpc-encoding", "br"}, codes.Unimplemented, "UNIMPLEMENTED", ""},
		"a message that a stream does not take":          {echo.Watch, append(declared, hi...), nil, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
		"a stream whose bytes are no message":            {echo.Watch, message(false, []byte{0xff}), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a stream without its message":                   {echo.Watch, nil, nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
		"a stream that is compressed by nothing":         {echo.Watch, message(true, hi), nil, codes.InvalidArgument, "MALFORMED_REQUEST", "MALFORMED_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			id = strings.ReplaceAll(id, ",", "")
			a := dialWire(t, h, address).call(1, tc.path, tc.body, append(tc.header, "x-request-id", id)...)
			a.want(t, tc.code)
			if a.reason(t) != tc.told || tc.told != "" && strings.Contains(a.fields["grpc-message"], "grpc") {
				t.Errorf("the answer is %q of reason %q, want %q", a.fields["grpc-message"], a.reason(t), tc.told)
			}
			line := logged(t, h, `"request_id":"`+id+`"`)
			if !strings.Contains(line, `"reason":"`+tc.logged+`"`) || strings.Contains(line, `"level":"ERROR"`) {
				t.Errorf("the log says %s, want %s and no error of ours", line, tc.logged)
			}
			// Whenever it is told: what was refused did not take long. The sweep of those that grpc-go answers looks once a second.
			var told struct{ Took time.Duration }
			if err := json.Unmarshal([]byte(line), &told); err != nil || told.Took > 2*time.Second {
				t.Errorf("it is said to have taken %s, %v", told.Took, err)
			}
		})
	}
	if n := handled.Load(); n > 0 {
		t.Errorf("%d of the calls reached a handler", n)
	}
}

func TestWhatNeverReachesAHandlerIsCounted(t *testing.T) {
	tele, err := telemetry.New(t.Context(), telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.Uint64,
	})
	if err != nil {
		t.Fatal(err)
	}
	h, address := onPort(t, echo.Handlers{}, func(o *kittest.Options) { o.Telemetry = tele })
	w := dialWire(t, h, address)
	w.call(1, "/echo.v1.EchoService", message(false, nil)).want(t, codes.Unimplemented)
	w.call(3, echo.Public, message(true, nil), "grpc-encoding", "br").want(t, codes.Unimplemented)
	w.call(5, echo.Public, message(false, []byte{0xff, 0xff, 0xff})).want(t, codes.InvalidArgument)
	w.call(7, echo.Public, append([]byte{0}, binary.BigEndian.AppendUint32(nil, 5<<20)...)).want(t, codes.ResourceExhausted)
	if err := h.Stop(); err != nil { // which tells of all that is not told of yet
		t.Fatal(err)
	}
	tt := &told{Harness: h, t: t, tele: tele}
	for series, want := range map[string]float64{
		`grpc_server_handled_total{grpc_code="Unimplemented",grpc_method="_OTHER",grpc_service="_OTHER",grpc_type="unary",service="test"}`:                  1,
		`grpc_server_handled_total{grpc_code="Unimplemented",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:     1,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:   1,
		`grpc_server_handled_total{grpc_code="ResourceExhausted",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`: 1,
		`grpc_server_faults_total{grpc_method="Public",grpc_service="echo.v1.EchoService",reason="MALFORMED_REQUEST",service="test"}`:                       1,
		`grpc_server_faults_total{grpc_method="Public",grpc_service="echo.v1.EchoService",reason="MESSAGE_TOO_LARGE",service="test"}`:                       1,
		`grpc_server_started_total{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                               3,
		`grpc_server_in_flight{grpc_method="_OTHER",grpc_service="_OTHER",grpc_type="unary",service="test"}`:                                                0,
		`grpc_server_in_flight{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                                   0,
	} {
		if got := tt.series()[series]; got != want {
			t.Errorf("%s = %v, want %v", series, got, want)
		}
	}
}

func TestWhoNeverSendsTheirMessageIsNotWaitedForBeyondTheTimeout(t *testing.T) {
	h, address := onPort(t, echo.Handlers{})
	for name, path := range map[string]string{"a unary call": echo.Public, "a stream of the server's": echo.Watch} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, h, address)
			if err := w.open(1, path); err != nil {
				t.Fatal(err)
			}
			a := w.end(1)
			a.want(t, codes.DeadlineExceeded)
			if a.reason(t) != "DEADLINE_EXCEEDED" {
				t.Errorf("ended with %q", a.fields["grpc-message"])
			}
		})
	}
}

// logged waits for a line of the log that has the text, and returns it: a line may be written right after the answer.
func logged(t *testing.T, h *kittest.Harness, text string) string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		for line := range strings.Lines(h.Log.String()) {
			if strings.Contains(line, text) {
				return line
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the log misses %s", text)
		}
	}
}

func TestAHugeDeadlineIsThePolicysTimeout(t *testing.T) {
	left := make(chan time.Duration, 1)
	h, address := onPort(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		end, _ := ctx.Deadline()
		left <- time.Until(end)
		return req, nil
	}})
	dialWire(t, h, address).call(1, echo.Public, message(false, nil), "grpc-timeout", "99999999H").want(t, codes.OK)
	if d := <-left; d <= 0 || d > 2*time.Second {
		t.Errorf("the handler has %s, want the two seconds of the policy", d)
	}
}

func TestGzipIsTakenAndAnsweredInKind(t *testing.T) {
	h, address := onPort(t, echo.Handlers{})
	dialWire(t, h, address).call(1, echo.Public, message(true, zipped(t, encoded(t, "hi"))), "grpc-encoding", "gzip").want(t, codes.OK)
}

func TestAGzipBombIsRefusedBeforeItGrows(t *testing.T) {
	h, address := onPort(t, echo.Handlers{})
	w := dialWire(t, h, address)
	// One GiB of zeros: members of a gzip stream follow each other.
	const member = 16 << 20
	bomb := bytes.Repeat(zipped(t, make([]byte, member)), (1<<30)/member)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.call(1, echo.Public, message(true, bomb), "grpc-encoding", "gzip").want(t, codes.ResourceExhausted)
	w.call(3, echo.Watch, message(true, bomb), "grpc-encoding", "gzip").want(t, codes.ResourceExhausted)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("two bombs of %d bytes made the server allocate %d MiB, want 64 at most", len(bomb), grown>>20)
	}
	w.call(5, echo.Public, message(false, nil)).want(t, codes.OK)
}

func TestHeadersBeyondTheirSizeAreRefusedAndHurtNobodyElse(t *testing.T) {
	tt := collecting(t)
	h, address := onPort(t, echo.Handlers{}, func(o *kittest.Options) { o.Telemetry = tt.tele })
	other := dialWire(t, h, address)
	refused := 0.0
	for name, attack := range map[string]func(w *wire) error{
		"8 MiB of headers": func(w *wire) error {
			return w.open(1, echo.Public, "x-long", strings.Repeat("x", 8<<20))
		},
		// An entry of 4,000 bytes in the table of the connection, and a byte for each of a thousand references to it.
		"a block of 5 KB that expands to 3.9 MB": func(w *wire) error {
			if err := w.open(1, echo.Public); err != nil {
				return err
			}
			block := bytes.Clone(w.block.Bytes())
			block = append(block, 0x40, 0x01, 'x')
			block = hpackInt(block, 7, 0, 4000)
			block = append(block, bytes.Repeat([]byte{'y'}, 4000)...)
			block = append(block, bytes.Repeat([]byte{0x80 | 62}, 1000)...)
			return w.headers(3, block)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, h, address)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := attack(w)
			for stream := uint32(3); err == nil; {
				a, over := w.next(stream)
				if over && a.fields != nil {
					t.Fatalf("answered: %+v", a)
				}
				if over {
					err = errors.Join(a.err, fmt.Errorf("reset %v", a.reset))
				}
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			refused++
			tt.until(`concordat_calls_refused_early_total{service="test"}`, refused)
			other.window[0] = 65535
		})
	}
	stream := uint32(1)
	for range 3 {
		other.call(stream, echo.Public, message(false, nil)).want(t, codes.OK)
		stream += 2
	}
}

// hpackInt appends an integer of HPACK (RFC 7541 section 5.1) with a prefix of so many bits.
func hpackInt(b []byte, bits uint, first byte, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 128; n /= 128 {
		b = append(b, byte(n%128|128))
	}
	return append(b, byte(n))
}
