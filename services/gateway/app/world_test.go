package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/token"
)

// world is a gateway with the services behind it, all on ports of 127.0.0.1.
type world struct {
	t         *testing.T
	auth      *kittest.Harness
	users     *kittest.Harness
	payments  *kittest.Harness
	listeners map[string]*kittest.Counted // of the services
	sessions  *sessions
	profiles  *profiles
	money     *money

	app  *App
	log  *kittest.Log
	base string // http://…
	grpc string
	stop context.CancelFunc
	done chan error
}

const ada = "0199a3c0-0000-7000-8000-0000000000ad"

func start(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, log: &kittest.Log{}, done: make(chan error, 1)}
	newID := id.Generator(clock.System(), rand.Reader)
	dir := t.TempDir()
	w.sessions = &sessions{accounts: make(map[string]*authv1.Account)}
	w.profiles = &profiles{}
	w.money = &money{newID: newID, byKey: make(map[string]*paymentsv1.Payment), changed: make(chan struct{}), attempts: make(map[string]int)}
	options := func(name string, l net.Listener) func(*kittest.Options) {
		return func(o *kittest.Options) {
			o.Name, o.Dir, o.Listener, o.DrainTimeout = name, dir, l, time.Second
			if w.auth != nil {
				o.Tokens = token.NewVerifier(token.VerifierConfig{
					Issuer: kittest.Issuer, Audience: kittest.Audience, Clock: clock.System(), Keys: w.auth.Keys,
				})
			}
		}
	}
	w.listeners = map[string]*kittest.Counted{"auth": {Listener: listen(t)}, "users": {Listener: listen(t)}, "payments": {Listener: listen(t)}}
	w.auth = kittest.Start(t, w.sessions.register, options("auth", w.listeners["auth"]))
	w.sessions.harness = w.auth
	w.users = kittest.Start(t, func(r grpc.ServiceRegistrar) { usersv1.RegisterUserServiceServer(r, w.profiles) }, options("users", w.listeners["users"]))
	w.payments = kittest.Start(t, func(r grpc.ServiceRegistrar) { paymentsv1.RegisterPaymentServiceServer(r, w.money) }, options("payments", w.listeners["payments"]))

	cfg := Config{
		Settings: Settings{
			HTTPListener: listen(t), GRPCListener: listen(t), MaxBody: 4 << 20,
			Auth: w.target("auth"), Users: w.target("users"), Payments: w.target("payments"),
		},
		Common: kit.Common{
			PKI: dir, TrustDomain: "concordat", Issuer: "http://localhost:8080", Audience: kittest.Audience, DrainTimeout: 5 * time.Second,
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	app, err := New(t.Context(), cfg, kit.Deps{
		Clock: clock.System(), Random: rand.Reader, Out: io.Discard,
		Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.app = app
	w.base, w.grpc = "http://"+app.HTTPAddr().String(), app.GRPCAddr().String()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.done <- app.Run(ctx) }()
	t.Cleanup(func() {
		w.stop()
		if err, ok := <-w.done; ok && err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

// target is where a service is.
func (w *world) target(service string) string { return w.listeners[service].Addr().String() }

// ready waits until the gateway has found all services.
func (w *world) ready() *world {
	w.t.Helper()
	select {
	case <-w.app.Ready():
	case <-time.After(20 * time.Second):
		w.t.Fatalf("not ready: %s", w.log)
	}
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// conn returns a connection to the gRPC listener.
func (w *world) conn() *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// token returns an access token of Ada.
func (w *world) token(scopes ...string) string {
	if scopes == nil {
		scopes = []string{"payments.read", "payments.write", "users.read", "users.admin", "auth.read", "auth.admin"}
	}
	return w.auth.Token(ada, scopes...)
}

// as returns a context whose calls carry Ada's token.
func (w *world) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.token())
}

// reply is an answer over HTTP.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// do makes a request; headers are "name: value".
func (w *world) do(method, path, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	return w.send(http.DefaultClient, req)
}

func (w *world) send(c *http.Client, req *http.Request) reply {
	w.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

const jsonType = "content-type: application/json"

func (w *world) bearer() string { return "authorization: Bearer " + w.token() }

// charge is the body of a charge of Ada.
func charge(key string, cents string) string {
	return `{"customer_id":"` + ada + `","order_id":"o-1","amount_cents":"` + cents + `","currency":"EUR","idempotency_key":"` + key + `"}`
}

// object returns the JSON object of a body.
func (r reply) object(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("%d, not JSON: %v: %s", r.code, err, r.body)
	}
	return m
}

// restStatus is google.rpc.Status as REST shows it.
type restStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type            string            `json:"@type"`
		Reason          string            `json:"reason"`
		Domain          string            `json:"domain"`
		Metadata        map[string]string `json:"metadata"`
		RequestID       string            `json:"request_id"`
		RetryDelay      string            `json:"retry_delay"`
		FieldViolations []struct {
			Field  string `json:"field"`
			Reason string `json:"reason"`
		} `json:"field_violations"`
	} `json:"details"`
}

func (s restStatus) reason() string {
	for _, d := range s.Details {
		if strings.HasSuffix(d.Type, "google.rpc.ErrorInfo") {
			return d.Domain + " " + d.Reason
		}
	}
	return ""
}

func (s restStatus) violations() (fields []string) {
	for _, d := range s.Details {
		for _, v := range d.FieldViolations {
			fields = append(fields, v.Field)
		}
	}
	return fields
}

// wantStatus fails the test unless the reply is a google.rpc.Status in JSON.
func (r reply) wantStatus(t *testing.T, httpCode, code int, reason string) restStatus {
	t.Helper()
	var s restStatus
	d := json.NewDecoder(bytes.NewReader(r.body))
	if err := d.Decode(&s); err != nil {
		t.Fatalf("%d, not JSON: %v: %s", r.code, err, r.body)
	}
	if r.code != httpCode || s.Code != code || s.reason() != reason || r.header.Get("content-type") != "application/json" {
		t.Fatalf("got HTTP %d %s: %s; want %d, code %d, %s", r.code, r.header.Get("content-type"), r.body, httpCode, code, reason)
	}
	id := ""
	for _, d := range s.Details {
		if d.RequestID != "" {
			id = d.RequestID
		}
	}
	if id == "" || id != r.header.Get("x-request-id") {
		t.Fatalf("the request id is %q in the header and %q in the details", r.header.Get("x-request-id"), id)
	}
	return s
}
