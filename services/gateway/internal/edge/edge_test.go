package edge

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

func TestMalformedJSONNamesTheField(t *testing.T) {
	for name, c := range map[string]struct{ body, field, rule string }{
		"an unknown field":               {`{"nope":1}`, "nope", "json.unknown_field"},
		"an unknown field inside":        {`{"charge":{"order_id":"1","nope":{}}}`, "charge.nope", "json.unknown_field"},
		"an unknown field after a list":  {`{"charge":{"metadata":{"a":"b"}},"nope":[1,2]}`, "nope", "json.unknown_field"},
		"a number that is none":          {`{"charge":{"amountCents":"many"}}`, "charge.amount_cents", "json.value"},
		"a number that is too large":     {`{"charge":{"amount_cents":99999999999999999999}}`, "charge.amount_cents", "json.value"},
		"an object for a text":           {`{"charge":{"orderId":{}}}`, "charge.order_id", "json.value"},
		"a number in a map of texts":     {`{"charge":{"metadata":{"a":1}}}`, "charge.metadata.a", "json.value"},
		"a text for a message":           {`{"charge":"x"}`, "charge", "json.value"},
		"on another line, after umlauts": {"{\"charge\":\n  {\"order_id\":\"ääää\", \"nope\":1}}", "charge.nope", "json.unknown_field"},
		"a field that is there twice":    {`{"charge":{"order_id":"1","orderId":"2"}}`, "charge.order_id", "json.value"},
		"JSON that ends too early":       {`{"charge":{`, "", ""},
		"no JSON":                        {`charge`, "", ""},
		"a list":                         {`[]`, "", ""},
		"something after it":             {`{} {}`, "", ""},
		"text that is not UTF-8":         {"{\"charge\":{\"order_id\":\"\xff\"}}", "charge.order_id", "json.value"},
	} {
		t.Run(name, func(t *testing.T) {
			var m paymentsv1.ProcessChargesRequest
			codec := newJSONCodec(protoregistry.GlobalTypes).(jsonCodec)
			err := codec.JSONCodec.Unmarshal([]byte(c.body), &m)
			if err == nil {
				t.Fatal("it is accepted")
			}
			f := malformedJSON(err, []byte(c.body), m.ProtoReflect().Descriptor())
			if f.Kind() != fault.InvalidArgument || f.Reason() != "MALFORMED_REQUEST" {
				t.Errorf("%v %s", f.Kind(), f.Reason())
			}
			var field, rule string
			if v := f.Violations(); len(v) == 1 {
				field, rule = v[0].Field, v[0].Rule
			}
			if field != c.field || rule != c.rule {
				t.Errorf("names %q (%s), want %q (%s): %v", field, rule, c.field, c.rule, err)
			}
			var ce *connect.Error
			if err := codec.Unmarshal([]byte(c.body), &m); !errors.As(err, &ce) || ce.Code() != connect.CodeInvalidArgument || len(ce.Details()) == 0 {
				t.Errorf("the codec says %v", err)
			}
		})
	}
}

func TestJSONHasTheNamesOfTheContract(t *testing.T) {
	m := &paymentsv1.Payment{AmountCents: 1999, CreatedAt: &timestamppb.Timestamp{Seconds: 1}}
	b, err := newJSONCodec(protoregistry.GlobalTypes).MarshalAppend(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(b), " ", "")
	want := `{"payment_id":"","order_id":"","customer_id":"","amount_cents":"1999","currency":"","state":"PAYMENT_STATE_UNSPECIFIED",` +
		`"metadata":{},"created_at":"1970-01-01T00:00:01Z","captured_cents":"0","refunded_cents":"0","capturable_cents":"0",` +
		`"decline_code":"DECLINE_CODE_UNSPECIFIED"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEveryFaultOfHTTPHasAReasonInTheContract(t *testing.T) {
	for _, f := range []*fault.Fault{errNoPath, errMethod, errMediaType, errVersion, errSlow, errInternal} {
		if _, ok := policyv1.ErrorReason_value["ERROR_REASON_"+f.Reason()]; !ok || f.Valid() != nil || f.Domain() != fault.Domain {
			t.Errorf("%s of %q is not in policy.v1.ErrorReason, or not valid: %v", f.Reason(), f.Domain(), f.Valid())
		}
	}
}

func TestPlainPaths(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/v1/users": true, "/v1/users/1:lock": true, "/payments.v1.PaymentService/Charge": true, "/.well-known/jwks.json": true,
		"": false, "*": false, "v1": false, "//": false, "/v1/": false, "/v1//x": false, "/./x": false, "/x/..": false, "/x/../y": false,
		"/%2e": false, "/a%20b": false, `/a\b`: false, "/a;b=c": false,
	} {
		if got := plainPath(path); got != want {
			t.Errorf("%q: %t", path, got)
		}
	}
}

func TestProtocols(t *testing.T) {
	for name, c := range map[string]struct {
		types  []string
		method bool
		want   protocol
		ok     bool
	}{
		"JSON to a method":         {[]string{"application/json"}, true, protocolConnect, true},
		"JSON elsewhere":           {[]string{"application/json"}, false, protocolREST, true},
		"nothing":                  {nil, false, protocolREST, true},
		"a stream":                 {[]string{"application/connect+json"}, true, protocolConnectStream, true},
		"gRPC":                     {[]string{"application/grpc"}, true, protocolGRPC, true},
		"gRPC with a codec":        {[]string{"application/grpc+proto"}, false, protocolGRPC, true},
		"gRPC-Web":                 {[]string{"application/grpc-web+proto"}, true, protocolGRPCWeb, true},
		"two types":                {[]string{"application/json", "application/grpc"}, true, protocolREST, false},
		"what only begins like it": {[]string{"application/grpcx"}, true, protocolConnect, true},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header["Content-Type"] = c.types
		if got, ok := protocolOf(r, c.method); got != c.want && ok || ok != c.ok {
			t.Errorf("%s: %v, %t", name, got, ok)
		}
	}
}

func TestGzipIsBounded(t *testing.T) {
	compressed := func(n int) *bytes.Reader {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, n)) // memory does not fail
		_ = z.Close()
		return bytes.NewReader(b.Bytes())
	}
	g := &limitedGzip{limit: 1000}
	for n, fits := range map[int]bool{0: true, 999: true, 1000: true, 1001: false, 1 << 20: false} {
		if err := g.Reset(compressed(n)); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(g)
		if fits && (err != nil || len(b) != n) || !fits && connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%d bytes: %d, %v", n, len(b), err)
		}
	}
	if err := g.Reset(strings.NewReader("no gzip")); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no gzip: %v", err)
	}
}

func TestThePageHasTheLinesOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	page := Page{HTTP: "http://localhost:8080", GRPC: "localhost:8081"}
	for _, c := range page.Commands() {
		all += c.Lines + "\n"
	}
	n := 0
	for line := range strings.Lines(string(readme)) {
		line = strings.TrimSpace(line)
		command := strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "go tool grpcurl ") || strings.HasPrefix(line, "SESSION=") ||
			strings.HasPrefix(line, "TOKEN=") || strings.HasPrefix(line, "USER_ID=")
		if !command || strings.Contains(line, "localhost:50") { // a service's own port is not the gateway's to explain
			continue
		}
		if n++; !strings.Contains(all, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
	if n == 0 {
		t.Error("the README has no commands")
	}
	page.Secure, page.HTTP = true, "https://api.example.com"
	for _, c := range page.Commands() {
		if strings.Contains(c.Lines, "-plaintext") || strings.Contains(c.Lines, "localhost:8080") || strings.Contains(c.Lines, "{http}") {
			t.Errorf("for a listener with a certificate: %s", c.Lines)
		}
	}
	// The byte that says how long the message of the streaming command is.
	i := slices.IndexFunc(page.Commands(), func(c Command) bool { return strings.Contains(c.Lines, `\000\000\000\000\066`) })
	if message := `{"customer_id":"0199a3c0-0000-7000-8000-000000000001"}`; i < 0 || len(message) != 0o66 {
		t.Errorf("the message has %d bytes", len(message))
	}
}

func TestAPanicIsAnInternalError(t *testing.T) {
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	operations, err := kit.NewOperations(t.Context(), kit.Edge, "", kit.Common{}, kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: logger, Out: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	signals, err := operations.Telemetry.Service(kit.Edge)
	if err != nil {
		t.Fatal(err)
	}
	newID := func() string { return "id" }
	forwarder, err := forward.New(forward.Config{Contract: c, Telemetry: signals, Log: logger, Clock: clock.System(), NewID: newID})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{
		Contract: c, RPC: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("hunter2") }), Forwarder: forwarder,
		Draining: func() bool { return false }, MaxBodyBytes: 4096, Telemetry: signals, Log: logger, Clock: clock.System(), NewID: newID,
		Check: func(context.Context) []upstream.Health { panic("hunter2") },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{
		httptest.NewRequest("GET", "/v1/jwks", nil), httptest.NewRequest("GET", "/readyz", nil),
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 500 || !strings.Contains(w.Body.String(), `"INTERNAL"`) || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: %d %s", r.URL, w.Code, w.Body)
		}
	}
	if n := strings.Count(log.String(), "hunter2"); n != 2 {
		t.Errorf("the log tells of %d panics: %s", n, &log)
	}
}
