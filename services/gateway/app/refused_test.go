package app

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller plants a secret wherever grpc-go would repeat it, at the port for gRPC and at the one
// for HTTP, twice over a connection, and looks for it in the answers.
func TestWhatGRPCAnswersByItselfRepeatsNothingOfTheCaller(t *testing.T) {
	w := start(t, withAdmin).ready()
	const canary, early = "c4n4ry", `concordat_calls_refused_early_total{service="gateway"}`
	refused := 0
	for _, tc := range []struct {
		name, field, value string
		early              bool   // before grpc-go announces the call
		status, text       string // at the port for gRPC
		http               string // at the one for HTTP: status
	}{
		{"a timeout", "grpc-timeout", canary, true, "13", "malformed grpc-timeout: ***", "3"},
		{"binary metadata", "x-bin", canary + "!", true, "13", "malformed binary metadata ***", "3"},
		{"a name of binary metadata", canary + "-bin", "!", true, "13", "malformed binary metadata ***", "3"},
		{"a content type", "content-type", canary, true, "3", "invalid gRPC request content-type ***", ""},
		{"a method of HTTP", ":method", canary, true, "13", "Received a HEADERS frame with :method ***", ""},
		{"a compression", "grpc-encoding", canary, false, "12", "grpc: Decompressor is not installed for grpc-encoding ***", "12"},
		{"half a path", ":path", "/" + canary, false, "12", "malformed method name: ***", "12"},
	} {
		fields := []string{":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "x",
			"content-type", "application/grpc", "te", "trailers"}
		if i := slices.Index(fields, tc.field); i >= 0 {
			fields[i+1] = tc.value
		} else {
			fields = append(fields, tc.field, tc.value)
		}
		for _, address := range []string{w.grpc, w.app.HTTPAddr().String()} {
			conn := dialHTTP2(t, address)
			first := conn.ask(t, 1, emptyMessage, fields...)
			again := conn.ask(t, 3, emptyMessage, fields...)
			for _, a := range []map[string]string{first, again} {
				if strings.Contains(fmt.Sprint(a), "4n4") {
					t.Errorf("%s, %s: the answer repeats it: %v", tc.name, address, a)
				}
				if address == w.grpc {
					if a["grpc-status"] != tc.status || !strings.HasPrefix(a["grpc-message"], tc.text) {
						t.Errorf("%s: %v, want %s %s", tc.name, a, tc.status, tc.text)
					}
				} else if a["grpc-status"] != tc.http || a[":status"] == "200" && a["grpc-message"] == "" {
					t.Errorf("%s, over HTTP: %v, want %q", tc.name, a, tc.http)
				}
			}
			if a := conn.ask(t, 5, emptyMessage, ":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "x",
				"content-type", "application/grpc", "te", "trailers"); a["grpc-status"] != "0" {
				t.Errorf("%s, %s: a good call after it: %v", tc.name, address, a)
			}
			if tc.early && address == w.grpc {
				refused += 2
			}
		}
	}
	w.until(fmt.Sprintf("%s %d", early, refused))
	if !strings.Contains(w.log.String(), `"calls refused before they began","address":"127.0.0.1","refused":1`) {
		t.Error("the log does not say that calls are refused")
	}
}

func TestAHeaderThatCannotBeReadIsTheCallersFaultInEveryProtocol(t *testing.T) {
	w := start(t).ready()
	for _, tc := range []struct {
		protocol, path, contentType, body string
		status, code                      string // of HTTP and, where the protocol has one, of gRPC
	}{
		{"gRPC", "/users.v1.UserService/GetUser", "application/grpc", emptyMessage, "200", "3"},
		{"gRPC-Web", "/users.v1.UserService/GetUser", "application/grpc-web+proto", emptyMessage, "200", "3"},
		{"Connect", "/users.v1.UserService/GetUser", "application/proto", "", "400", ""},
		{"REST", "/v1/sessions", "application/json", `{"email": "a@example.com"}`, "400", ""},
	} {
		for _, header := range [][2]string{{"x-bin", "c4n4ry!"}, {"c4n4ry-bin", "!"}, {"grpc-timeout", "c4n4ry"}} {
			if tc.protocol == "gRPC-Web" && header[0] == "grpc-timeout" {
				continue // HTTP itself is at fault there, says the transcoder
			}
			a := dialHTTP2(t, w.app.HTTPAddr().String()).ask(t, 1, tc.body, ":method", "POST", ":scheme", "http", ":path", tc.path, ":authority", "x",
				"content-type", tc.contentType, header[0], header[1])
			if all := fmt.Sprint(a); !strings.Contains(all, "MALFORMED_REQUEST") && tc.code == "" || a[":status"] != tc.status || a["grpc-status"] != tc.code || strings.Contains(all, "4n4") {
				t.Errorf("%s, %s: %s, want %s %s", tc.protocol, header[0], all, tc.status, tc.code)
			}
		}
	}
}
