package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/gen"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/token"
)

// raw sends a request as it stands and returns the answer: an HTTP client of Go tidies paths up.
func (w *world) raw(method, target, body string, headers ...string) reply {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.app.HTTPAddr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b []byte
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil {
			break
		}
	}
	return reply{resp.StatusCode, resp.Header, b}
}

func TestPathsMeanWhatTheySay(t *testing.T) {
	w := start(t).ready()
	body := `{"customer_id":"` + ada + `"}`
	const method = "/payments.v1.PaymentService/ListPayments"
	if r := w.raw("POST", method, body, jsonType, w.bearer()); r.code != 200 {
		t.Fatalf("the plain path: %d %s", r.code, r.body)
	}
	for name, target := range map[string]string{
		"an escaped letter":          "/payments.v1.PaymentService/%4cistPayments",
		"an escaped slash":           "/payments.v1.PaymentService%2FListPayments",
		"an empty segment":           "//payments.v1.PaymentService/ListPayments",
		"an empty segment within":    "/payments.v1.PaymentService//ListPayments",
		"a slash at the end":         method + "/",
		"a query":                    method + "?x=1",
		"an empty query":             method + "?",
		"a relative segment":         "/x/../payments.v1.PaymentService/ListPayments",
		"a path parameter":           method + ";x=1",
		"another case":               "/payments.v1.paymentservice/listpayments",
		"a REST path in disguise":    "/v1/%70ayments",
		"a REST path, doubled":       "/v1//payments",
		"a REST path up and down":    "/v1/x/../payments",
		"a double escape":            "/v1/payments/%252e%252e",
		"an escaped variable":        "/v1/users/0199a3c0-0000-7000-8000-0000000000ad%3Alock",
		"a method that is not":       "/payments.v1.PaymentService/Nothing",
		"a service that is not":      "/nobody.v1.Service/Nothing",
		"an own page with an escape": "/health%7a",
	} {
		t.Run(name, func(t *testing.T) {
			for _, headers := range [][]string{{jsonType}, {"content-type: application/proto"}, {jsonType, "connect-protocol-version: 1"}} {
				r := w.raw("POST", target, body, append(headers, w.bearer())...)
				if r.code != 404 || !json.Valid(r.body) {
					t.Errorf("%s: %d %s", headers, r.code, r.body)
				}
			}
			r := w.raw("POST", target, frame(0, body), "content-type: application/grpc-web+json", w.bearer())
			if r.header.Get("grpc-status") != "12" {
				t.Errorf("gRPC-Web: %d, grpc-status %q, %s", r.code, r.header.Get("grpc-status"), r.body)
			}
			r = w.raw("POST", target, frame(0, body), "content-type: application/connect+json", w.bearer())
			if !strings.Contains(string(r.body), `"unimplemented"`) {
				t.Errorf("Connect stream: %d %s", r.code, r.body)
			}
		})
	}
	w.raw("GET", "/v1/nowhere", "").wantStatus(t, 404, 12, "policy.v1 UNIMPLEMENTED")
	w.raw("OPTIONS", "*", "").wantStatus(t, 404, 12, "policy.v1 UNIMPLEMENTED")
	r := w.raw("POST", method, body, jsonType, "Content-Type: application/proto")
	r.wantStatus(t, 415, 3, "policy.v1 MALFORMED_REQUEST")
}

func TestOnlyAllowedOriginsMayCallFromABrowser(t *testing.T) {
	w := start(t, func(c *Config) { c.AllowedOrigin = []string{"https://app.example.com"} }).ready()
	preflight := func(origin string) reply {
		return w.do("OPTIONS", "/payments.v1.PaymentService/ListPayments", "", "origin: "+origin,
			"access-control-request-method: POST", "access-control-request-headers: authorization,connect-protocol-version,x-grpc-web")
	}
	r := preflight("https://app.example.com")
	allowed := strings.Split(r.header.Get("access-control-allow-headers"), ", ")
	for _, h := range []string{"authorization", "content-type", "connect-protocol-version", "connect-timeout-ms", "x-grpc-web", "grpc-timeout", "x-user-agent"} {
		if !slices.Contains(allowed, h) {
			t.Errorf("%s is not allowed: %v", h, allowed)
		}
	}
	if r.code != 204 || r.header.Get("access-control-allow-origin") != "https://app.example.com" ||
		!strings.Contains(r.header.Get("access-control-allow-methods"), "POST") || r.header.Get("access-control-allow-credentials") != "" {
		t.Errorf("%d %v", r.code, r.header)
	}
	for _, origin := range []string{"https://evil.example.com", "http://app.example.com", "https://app.example.com.evil.com", "null"} {
		if r := preflight(origin); r.header.Get("access-control-allow-origin") != "" {
			t.Errorf("%s is allowed: %v", origin, r.header)
		}
	}
	r = w.do("GET", "/v1/payments?customer_id="+ada, "", w.bearer(), "origin: https://app.example.com")
	exposed := r.header.Get("access-control-expose-headers")
	if r.code != 200 || r.header.Get("access-control-allow-origin") != "https://app.example.com" ||
		!strings.Contains(exposed, "grpc-status") || !strings.Contains(exposed, "x-request-id") || r.header.Get("vary") != "Origin" {
		t.Errorf("%d %v", r.code, r.header)
	}
}

func TestEveryAnswerHasItsSecurityHeaders(t *testing.T) {
	w := start(t).ready()
	for path, policy := range map[string]string{
		"/": "style-src 'sha256-", "/healthz": "default-src 'none'", "/v1/jwks": "default-src 'none'", "/nowhere": "default-src 'none'",
	} {
		r := w.do("GET", path, "")
		csp := r.header.Get("content-security-policy")
		if r.header.Get("x-content-type-options") != "nosniff" || r.header.Get("referrer-policy") != "no-referrer" ||
			!strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, policy) || r.header.Get("x-request-id") == "" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	if r := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer()); r.header.Get("cache-control") != "no-store" {
		t.Errorf("cache-control of an answer: %q", r.header.Get("cache-control"))
	}
	r := w.do("GET", "/healthz", "", "x-request-id: not valid!")
	if id := r.header.Get("x-request-id"); id == "" || strings.Contains(id, " ") {
		t.Errorf("x-request-id is %q", id)
	}
}

func TestDocuments(t *testing.T) {
	w := start(t).ready()
	r := w.do("GET", "/.well-known/jwks.json", "")
	var set struct {
		Keys []struct{ Kty, Crv, X, Kid, Alg, Use string }
	}
	if err := json.Unmarshal(r.body, &set); err != nil || r.code != 200 || len(set.Keys) != 1 || !strings.Contains(r.header.Get("cache-control"), "max-age") {
		t.Fatalf("%d %v %s", r.code, r.header, r.body)
	}
	if k, err := token.ParseKey(set.Keys[0].Kid, set.Keys[0].X); err != nil || set.Keys[0].Kty != "OKP" || set.Keys[0].Crv != "Ed25519" || set.Keys[0].Alg != "EdDSA" || set.Keys[0].Use != "sig" {
		t.Errorf("%v, %v: %s", k, err, r.body)
	}
	r = w.do("GET", "/.well-known/openid-configuration", "")
	doc := r.object(t)
	if doc["issuer"] != "http://localhost:8080" || doc["jwks_uri"] != "http://localhost:8080/.well-known/jwks.json" ||
		fmt.Sprint(doc["id_token_signing_alg_values_supported"]) != "[EdDSA]" || !strings.Contains(string(r.body), "payments.write") {
		t.Errorf("%d %s", r.code, r.body)
	}
	if r := w.do("GET", "/openapi.yaml", ""); r.code != 200 || string(r.body) != string(gen.OpenAPI) || !strings.Contains(r.header.Get("content-type"), "yaml") {
		t.Errorf("openapi: %d, %d bytes", r.code, len(r.body))
	}
	if r := w.do("HEAD", "/openapi.yaml", ""); r.code != 200 || len(r.body) != 0 {
		t.Errorf("HEAD: %d, %d bytes", r.code, len(r.body))
	}
	if r := w.do("POST", "/healthz", ""); r.code != 405 || r.header.Get("allow") != "GET, HEAD" {
		t.Errorf("POST of a page: %d, allow %q", r.code, r.header.Get("allow"))
	}
	if err := w.auth.Stop(); err != nil {
		t.Fatal(err)
	}
	w.do("GET", "/.well-known/jwks.json", "").wantStatus(t, 503, 14, "policy.v1 UPSTREAM_UNAVAILABLE")
}

func TestTheLandingPageTellsWhatRunsWhere(t *testing.T) {
	w := start(t).ready()
	r := w.do("GET", "/", "")
	if r.code != 200 || !strings.HasPrefix(r.header.Get("content-type"), "text/html") {
		t.Fatalf("%d %v", r.code, r.header)
	}
	_, httpPort, _ := net.SplitHostPort(w.app.HTTPAddr().String())
	_, grpcPort, _ := net.SplitHostPort(w.app.GRPCAddr().String())
	for _, part := range []string{
		"http://localhost:" + httpPort, "localhost:" + grpcPort + " list", w.app.cfg.Payments, "payments.v1.PaymentService", "serving",
		"WatchTransactions", "/v1/charges", "go tool grpcurl",
	} {
		if !strings.Contains(string(r.body), part) {
			t.Errorf("the page lacks %s", part)
		}
	}
	for _, part := range []string{"not serving", "<script", "src=\"http", "href=\"http"} {
		if strings.Contains(string(r.body), part) {
			t.Errorf("the page has %s", part)
		}
	}
}

// The commands of the page run as they are printed; those of grpcurl, which is a tool of another module, run with the
// README.
func TestTheCommandsOfThePageWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	w := start(t).ready()
	var script strings.Builder
	for _, c := range w.app.page(nil).Commands() {
		for line := range strings.Lines(c.Lines) {
			if !strings.HasPrefix(line, "go tool grpcurl") {
				line = strings.Replace(line, "curl -sSN", "curl -sSN --max-time 1", 1) // a person ends it by hand
				fmt.Fprintf(&script, "%s\necho; echo '=== '\n", line)
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script.String()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	parts := strings.Split(string(out), "=== ")
	for i, want := range []string{
		`"ada@example.com"`, "", "", "", `"1999"`, `"order-1"`, `"order-1"`, "openapi: 3.1.0", `"resume_token"`,
	} {
		if i >= len(parts) || !strings.Contains(parts[i], want) {
			t.Errorf("step %d lacks %s: %s", i, want, out)
		}
	}
}

func TestTrustedProxiesSayWhoCalls(t *testing.T) {
	w := start(t, func(c *Config) {
		c.TrustedProxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	}).ready()
	address := func() string {
		w.money.mu.Lock()
		defer w.money.mu.Unlock()
		return w.money.address
	}
	w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer(), "x-forwarded-for: 192.0.2.66, 203.0.113.9, 10.1.2.3")
	if got := address(); got != "203.0.113.9" {
		t.Errorf("REST: %q", got)
	}
	ctx := metadata.AppendToOutgoingContext(w.as(t.Context()), "x-forwarded-for", "192.0.2.66, 198.51.100.7")
	if _, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k2", 1999)); err != nil {
		t.Fatal(err)
	}
	if got := address(); got != "198.51.100.7" {
		t.Errorf("gRPC: %q", got)
	}
}

func TestADrainEndsStreamsAndFinishesCalls(t *testing.T) {
	w := start(t).ready()
	payments := paymentsv1.NewPaymentServiceClient(w.conn())
	ctx := w.as(t.Context())
	watch, err := payments.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: ada})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	overHTTP := client[paymentsv1.WatchTransactionsRequest, paymentsv1.WatchTransactionsResponse](w, paymentsv1.PaymentService_WatchTransactions_FullMethodName, http.DefaultClient, []connect.ClientOption{connect.WithProtoJSON()})
	second, err := overHTTP.CallServerStream(t.Context(), authorized(w, &paymentsv1.WatchTransactionsRequest{CustomerId: ada}))
	if err != nil {
		t.Fatal(err)
	}
	if !second.Receive() {
		t.Fatal(second.Err())
	}
	both, err := payments.ProcessCharges(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := both.Send(&paymentsv1.ProcessChargesRequest{Charge: chargeOf("1", 100)}); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Recv(); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	w.stop()
	want := func(name string, err error) {
		t.Helper()
		if f := faultOf(err); f == nil || f.Reason() != "DRAINING" {
			t.Errorf("%s ends with %v", name, err)
		}
	}
	for err = nil; err == nil; { // the charge comes first
		_, err = watch.Recv()
	}
	want("a stream over gRPC", err)
	_, err = both.Recv()
	want("a stream both ways", err)
	for second.Receive() {
	}
	wantConnect(t, second.Err(), connect.CodeUnavailable, "DRAINING", "")
	if err := <-w.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	close(w.done)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if _, err := net.DialTimeout("tcp", w.grpc, time.Second); err == nil {
		t.Error("the listener is still open")
	}
}

func TestADrainHasAnEnd(t *testing.T) {
	w := start(t, func(c *Config) { c.DrainTimeout = 300 * time.Millisecond }).ready()
	// A call that does not end by itself: its body never comes.
	conn, err := net.Dial("tcp", w.app.HTTPAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/charges HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err) // the body is being read now
	}
	began := time.Now()
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	close(w.done)
	if took := time.Since(began); took < 300*time.Millisecond || took > 3*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

func faultOf(err error) *fault.Fault {
	if err == nil {
		return nil
	}
	return grpcfault.FromError(err)
}
