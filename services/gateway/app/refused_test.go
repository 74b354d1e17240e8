package app

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// until waits for the lines to be in the metrics: what is told of comes after the answer.
func (w *world) until(want ...string) {
	w.t.Helper()
	var got []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		got = w.metrics()
		missing := slices.DeleteFunc(slices.Clone(want), func(line string) bool { return slices.Contains(got, line) })
		if len(missing) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, line := range got {
		if strings.HasPrefix(line, "concordat_edge_requests_total") {
			w.t.Log(line)
		}
	}
	w.t.Fatalf("not all of these are in the metrics: %v", want)
}

func requests(protocol string, status, n int) string {
	return fmt.Sprintf(`concordat_edge_requests_total{protocol="%s",service="gateway",status="%d"} %d`, protocol, status, n)
}

func TestWhatIsRefusedIsCountedAndTheLogHasALineNowAndThen(t *testing.T) {
	w := start(t, withAdmin, func(c *Config) { c.MaxBody = 4096 }).ready()
	for range 3 {
		w.do("GET", "/nowhere", "").wantStatus(t, 404, 12, "policy.v1 UNIMPLEMENTED")
	}
	w.do("POST", "/v1/charges", strings.Repeat(" ", 5000), jsonType).wantStatus(t, 413, 8, "policy.v1 MESSAGE_TOO_LARGE")
	w.do("GET", "/v1/"+strings.Repeat("x", 4000), "").wantStatus(t, 414, 12, "policy.v1 UNIMPLEMENTED")
	w.until(requests("rest", 404, 3), requests("rest", 413, 1), requests("rest", 414, 1))
	var lines []string
	for _, line := range strings.Split(w.log.String(), "\n") {
		if strings.Contains(line, `"level":"INFO"`) && strings.Contains(line, `"requests refused"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], `"status":404`) || !strings.Contains(lines[0], `"path":"/nowhere"`) || !strings.Contains(lines[0], `"address":"127.0.0.1"`) {
		t.Errorf("at INFO the log says %q", lines)
	}
}

func TestHeadersBeyond16KiBAreRefusedAndCounted(t *testing.T) {
	w := start(t, withAdmin).ready()
	http2 := h2c(t)
	get := func(c *http.Client, bytes int) reply {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.base+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		for left := bytes; left > 0; left -= 1000 {
			req.Header.Add("x-filler", strings.Repeat("x", 1000-len("x-filler: \r\n")))
		}
		return w.send(c, req)
	}
	for _, c := range []*http.Client{http.DefaultClient, http2} {
		if r := get(c, 15000); r.code != http.StatusOK {
			t.Errorf("headers of 15,000 bytes: %d %s", r.code, r.body)
		}
		get(c, 17000).wantStatus(t, 431, 8, "policy.v1 MESSAGE_TOO_LARGE")
	}
	w.until(requests("rest", 431, 2), requests("page", 200, 2))
	// Beyond that nobody of ours sees them.
	for text, status := range map[string]int{
		"this is not HTTP\r\n\r\n": 400,
		"GET /healthz HTTP/1.1\r\nHost: x\r\nx-filler: " + strings.Repeat("x", 32000) + "\r\n\r\n": 431,
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, text)
		_, _ = io.ReadAll(conn) // the connection may be reset before the answer was read: not all was that we have sent
		w.until(requests("http", status, 1))
	}
	w.until(requests("http", 400, 1), requests("http", 431, 1), requests("rest", 431, 2))
}

func TestHeadersBeyondTheTransportsLimitAreCountedOverTLSToo(t *testing.T) {
	certFile, keyFile, pool := issue(t, t.TempDir(), "edge")
	w := start(t, withAdmin, func(c *Config) { c.EdgeCert, c.EdgeKey = certFile, keyFile }).ready()
	for _, protocol := range []string{"http/1.1", "h2"} {
		conn, err := tls.Dial("tcp", w.app.HTTPAddr().String(), &tls.Config{RootCAs: pool, NextProtos: []string{protocol}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if protocol == "h2" {
			overHTTP2(t, conn).get(t, 1, 24000)
			continue
		}
		_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nx-filler: %s\r\n\r\n", strings.Repeat("x", 32000))
		_, _ = io.ReadAll(conn) // it may be reset, as above
	}
	w.until(requests("http", 431, 2))
}

// Go's client does not send what the server says it does not take, so the frames are our own.
func TestHeadersBeyondTheTransportsLimitAreCountedOverHTTP2Too(t *testing.T) {
	w := start(t, withAdmin).ready()
	conn := dialHTTP2(t, strings.TrimPrefix(w.base, "http://"))
	conn.get(t, 1, 100)
	w.until(requests("page", 200, 1))
	conn.get(t, 3, 24000)
	w.until(requests("page", 200, 1), requests("http", 431, 1))
}

// A request whose headers do not come holds its connection for five seconds and no longer.
func TestHeadersThatDoNotComeAreNotWaitedFor(t *testing.T) {
	w := start(t).ready()
	const many = 50
	closed := make(chan time.Duration, many)
	for i := range many {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		if i%2 == 0 {
			if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			_, _ = io.ReadAll(conn)
			closed <- time.Since(began)
		}()
	}
	if r := w.do("GET", "/healthz", ""); r.code != http.StatusOK {
		t.Errorf("beside %d who say nothing: %d", many, r.code)
	}
	patience := time.After(20 * time.Second)
	for n := range many {
		select {
		case took := <-closed:
			if took < 4*time.Second || took > 12*time.Second {
				t.Errorf("closed after %s, want about five seconds", took)
			}
		case <-patience:
			t.Fatalf("%d of %d connections that say nothing were closed", n, many)
		}
	}
}

// goodCall is one that the edge answers by itself.
var goodCall = []string{":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "x",
	"content-type", "application/grpc", "te", "trailers"}

// but returns the headers with one of them changed, or one more.
func but(fields []string, name, value string) []string {
	fields = slices.Clone(fields)
	if i := slices.Index(fields, name); i >= 0 {
		fields[i+1] = value
		return fields
	}
	return append(fields, name, value)
}

// reasonOf returns the reason of a status over gRPC, "" where there are no details, and fails the test where they do not say which
// request they answer.
func reasonOf(t *testing.T, answer map[string]string) string {
	t.Helper()
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(answer["grpc-status-details-bin"], "="))
	if err != nil {
		t.Fatal(err)
	}
	var st spb.Status
	if err := proto.Unmarshal(raw, &st); err != nil {
		t.Fatal(err)
	}
	if len(raw) == 0 {
		return ""
	}
	var info errdetails.RequestInfo
	for _, d := range st.GetDetails() {
		_ = d.UnmarshalTo(&info) // which one it is
	}
	if info.GetRequestId() == "" || info.GetRequestId() != answer["x-request-id"] {
		t.Errorf("the answer to request %q says that it is that to %q", answer["x-request-id"], info.GetRequestId())
	}
	return grpcfault.FromStatus(&st).Reason()
}

// TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller plants a secret wherever grpc-go would repeat it, at the port for gRPC and at the one
// for HTTP, twice over a connection, and looks for it in the answers. Texts are compared where what is masked in them is the question.
func TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller(t *testing.T) {
	w := start(t, withAdmin).ready()
	const canary = "c4n4ry"
	early := 0
	for _, tc := range []struct {
		name, field, value string
		early              bool   // it is no call yet
		status, text       string // at the port for gRPC
		http, code, reason string // at the one for HTTP: the status of HTTP, that of gRPC, and its reason
	}{
		{"a timeout", "grpc-timeout", canary, true, "13", "malformed grpc-timeout: ***", "200", "3", "MALFORMED_REQUEST"},
		{"binary metadata", "x-bin", canary + "!", true, "13", "malformed binary metadata ***", "200", "3", "MALFORMED_REQUEST"},
		{"a name of binary metadata", canary + "-bin", "!", true, "13", "malformed binary metadata ***", "200", "3", "MALFORMED_REQUEST"},
		{"a content type", "content-type", canary, true, "3", "invalid gRPC request content-type ***", "404", "", ""},
		{"a method of HTTP", ":method", canary, true, "13", "Received a HEADERS frame with :method ***", "405", "", ""},
		{"a compression", "grpc-encoding", canary, false, "12", "grpc: Decompressor is not installed for grpc-encoding ***", "200", "12", "UNIMPLEMENTED"},
		{"half a path", ":path", "/" + canary, true, "12", "malformed method name: ***", "200", "12", "UNIMPLEMENTED"},
	} {
		for _, address := range []string{w.grpc, w.app.HTTPAddr().String()} {
			conn := dialHTTP2(t, address)
			for _, stream := range []uint32{1, 3} {
				a := conn.ask(t, stream, emptyMessage, but(goodCall, tc.field, tc.value)...)
				if strings.Contains(fmt.Sprint(a), "4n4") {
					t.Errorf("%s, %s: the answer repeats it: %v", tc.name, address, a)
				}
				if address == w.grpc {
					if a["grpc-status"] != tc.status || !strings.HasPrefix(a["grpc-message"], tc.text) {
						t.Errorf("%s: %v, want %s %s", tc.name, a, tc.status, tc.text)
					}
					if tc.early {
						early++
					}
				} else if got := reasonOf(t, a); a[":status"] != tc.http || a["grpc-status"] != tc.code || got != tc.reason {
					t.Errorf("%s, over HTTP: %v of reason %q, want %s, %s %s", tc.name, a, got, tc.http, tc.code, tc.reason)
				}
			}
			if a := conn.ask(t, 5, emptyMessage, goodCall...); a["grpc-status"] != "0" {
				t.Errorf("%s, %s: a good call after it: %v", tc.name, address, a)
			}
		}
	}
	w.until(fmt.Sprintf(`concordat_calls_refused_early_total{service="gateway"} %d`, early), // and not one of the good ones
		requests("grpc", 400, 6), requests("grpc", 404, 2), requests("grpc", 405, 2))
	if !strings.Contains(w.log.String(), `"calls refused before they began","address":"127.0.0.1","refused":1}`) {
		t.Error("the log does not say that calls are refused")
	}
}

// TestACallThatGRPCRefusesByItselfIsCountedOverTLSToo has one whose headers cannot be read, and one whose time is over.
func TestACallThatGRPCRefusesByItselfIsCountedOverTLSToo(t *testing.T) {
	certFile, keyFile, pool := issue(t, t.TempDir(), "edge")
	w := start(t, withAdmin, func(c *Config) { c.EdgeCert, c.EdgeKey = certFile, keyFile }).ready()
	secure, err := tls.Dial("tcp", w.grpc, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	conn := overHTTP2(t, secure)
	for i, tc := range []struct {
		code   string
		fields []string
	}{
		{"0", goodCall}, {"13", but(goodCall, "grpc-timeout", "soon")}, {"0", goodCall}, {"4", but(goodCall, "grpc-timeout", "0n")}, {"0", goodCall},
	} {
		if a := conn.ask(t, uint32(2*i+1), emptyMessage, tc.fields...); a["grpc-status"] != tc.code {
			t.Errorf("call %d: %v, want %s", i, a, tc.code)
		}
	}
	w.until(`concordat_calls_refused_early_total{service="gateway"} 2`)
}

func TestHTTP1AtThePortForGRPCIsCountedAndLogged(t *testing.T) {
	w := start(t, withAdmin).ready()
	conn, err := net.Dial("tcp", w.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = io.ReadAll(conn) // the connection may be reset
	w.until(`concordat_connections_refused_total{reason="protocol",service="gateway"} 1`)
	if !strings.Contains(w.log.String(), `"connection refused","address":"127.0.0.1","refused":1,"reason":"protocol"`) {
		t.Error("the log does not say so")
	}
}

func TestAHeaderThatCannotBeReadIsTheCallersFaultInEveryProtocol(t *testing.T) {
	w := start(t).ready()
	const getUser = "/users.v1.UserService/GetUser"
	for _, tc := range []struct {
		protocol, path, contentType, body, header, value string
		status, code                                     string // of HTTP and, where the answer is in gRPC, of that
	}{
		{"gRPC", getUser, "application/grpc", emptyMessage, "x-bin", "c4n4ry!", "200", "3"},
		{"gRPC", getUser, "application/grpc", emptyMessage, "c4n4ry-bin", "!", "200", "3"},
		{"gRPC", getUser, "application/grpc", emptyMessage, "grpc-timeout", "c4n4ry", "200", "3"},
		{"gRPC-Web", getUser, "application/grpc-web+proto", emptyMessage, "x-bin", "c4n4ry!", "200", "3"},
		{"gRPC-Web", getUser, "application/grpc-web+proto", emptyMessage, "c4n4ry-bin", "!", "200", "3"},
		{"gRPC-Web", getUser, "application/grpc-web+proto", emptyMessage, "grpc-timeout", "c4n4ry", "400", ""}, // the transcoder's, in JSON
		{"Connect", getUser, "application/proto", "", "x-bin", "c4n4ry!", "400", ""},
		{"Connect", getUser, "application/proto", "", "c4n4ry-bin", "!", "400", ""},
		{"Connect", getUser, "application/proto", "", "connect-timeout-ms", "c4n4ry", "400", ""},
		{"Connect, a stream", "/users.v1.UserService/WatchUsers", "application/connect+proto", emptyMessage, "x-bin", "c4n4ry!", "200", ""},
		{"REST", "/v1/sessions", "application/json", `{"email": "a@example.com"}`, "x-bin", "c4n4ry!", "400", ""},
		{"REST", "/v1/sessions", "application/json", `{"email": "a@example.com"}`, "c4n4ry-bin", "!", "400", ""},
		{"REST", "/v1/sessions", "application/json", `{"email": "a@example.com"}`, "grpc-timeout", "c4n4ry", "400", ""},
	} {
		a := dialHTTP2(t, w.app.HTTPAddr().String()).ask(t, 1, tc.body, ":method", "POST", ":scheme", "http", ":path", tc.path, ":authority", "x",
			"content-type", tc.contentType, tc.header, tc.value)
		malformed := strings.Contains(a["body"], "MALFORMED_REQUEST")
		if tc.code != "" {
			malformed = reasonOf(t, a) == "MALFORMED_REQUEST"
		}
		if all := fmt.Sprint(a); a[":status"] != tc.status || a["grpc-status"] != tc.code || !malformed || strings.Contains(all, "4n4") {
			t.Errorf("%s, %s: %s, want %s %s", tc.protocol, tc.header, all, tc.status, tc.code)
		}
	}
}

// TestAMessageThatTheEdgeItselfCannotReadIsTheCallersFault is of the methods that are served here, and of the port for HTTP.
func TestAMessageThatTheEdgeItselfCannotReadIsTheCallersFault(t *testing.T) {
	w := start(t).ready()
	for name, tc := range map[string]struct {
		body, code, reason string
		fields             []string
	}{
		"a good one":                {emptyMessage, "0", "", goodCall},
		"bytes that are no message": {"\x00\x00\x00\x00\x01\xff", "3", "MALFORMED_REQUEST", goodCall},
		"text that is none":         {"\x00\x00\x00\x00\x03\x0a\x01\xff", "3", "MALFORMED_REQUEST", goodCall},
		"an unknown frame":          {"\x63\x00\x00\x00\x00", "3", "MALFORMED_REQUEST", goodCall},
		"compressed by nothing":     {"\x01\x00\x00\x00\x01x", "3", "MALFORMED_REQUEST", goodCall},
		"compressed, but not":       {"\x01\x00\x00\x00\x01x", "3", "MALFORMED_REQUEST", but(goodCall, "grpc-encoding", "gzip")},
		"an unknown compression":    {"\x01\x00\x00\x00\x01x", "12", "UNIMPLEMENTED", but(goodCall, "grpc-encoding", "br")},
		"one that is too large":     {"\x00\x7f\x00\x00\x00", "8", "MESSAGE_TOO_LARGE", goodCall},
	} {
		a := dialHTTP2(t, w.app.HTTPAddr().String()).ask(t, 1, tc.body, tc.fields...)
		if a["grpc-status"] != tc.code || reasonOf(t, a) != tc.reason {
			t.Errorf("%s: %v, want %s %s", name, a, tc.code, tc.reason)
		}
	}
	if strings.Contains(w.log.String(), `"level":"ERROR"`) {
		t.Error("the log calls it an error of ours")
	}
}
