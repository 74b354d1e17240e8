package app

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

const (
	ann    = "0197a000-0000-7000-8000-00000000000a"
	bob    = "0197a000-0000-7000-8000-00000000000b"
	nobody = "0197a000-0000-7000-8000-0000000000ff"
)

// auth is auth.v1 as far as payments needs it, behind the real request path. It keeps who is there and active.
type auth struct {
	authv1.UnimplementedAuthServiceServer
	authv1.UnimplementedKeyServiceServer
	*kittest.Harness

	mu     sync.Mutex
	active map[string]bool
}

func (a *auth) GetUser(_ context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	active, ok := a.active[req.GetUserId()]
	if !ok {
		return nil, fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user").With("user_id", req.GetUserId())
	}
	return &authv1.GetUserResponse{UserId: req.GetUserId(), Active: active, Role: authv1.Role_ROLE_MEMBER}, nil
}

func (a *auth) GetJwks(ctx context.Context, _ *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	list, err := a.Keys(ctx)
	if err != nil {
		return nil, err
	}
	resp := &authv1.GetJwksResponse{}
	for _, k := range list {
		resp.Keys = append(resp.Keys, &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", Kid: k.ID, X: k.X(), Alg: "EdDSA", Use: "sig"})
	}
	return resp, nil
}

func (a *auth) lock(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active[user] = false
}

// startAuth serves auth.v1 on the listener.
func startAuth(t *testing.T, pki string, l net.Listener) *auth {
	t.Helper()
	a := &auth{active: map[string]bool{ann: true, bob: true}}
	a.Harness = kittest.Start(t, func(r grpc.ServiceRegistrar) {
		authv1.RegisterAuthServiceServer(r, a)
		authv1.RegisterKeyServiceServer(r, a)
	}, func(o *kittest.Options) { o.Name, o.Dir, o.Listener = "auth", pki, l })
	return a
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func config(dir, auth string) Config {
	return Config{
		Settings: Settings{
			Listen: "127.0.0.1:0", Data: filepath.Join(dir, "payments"), Auth: auth, Users: "dns:///127.0.0.1:1",
			AuthorizationExpiry: time.Hour, KeyRetention: 24 * time.Hour, CustomerStaleness: time.Minute,
		},
		Common: kit.Common{
			PKI: filepath.Join(dir, "pki"), TrustDomain: "concordat", Issuer: kittest.Issuer, Audience: kittest.Audience,
			DrainTimeout: 5 * time.Second,
		},
	}
}

// besideAuth starts an auth and returns the configuration of a service that asks it.
func besideAuth(t *testing.T) (Config, *auth) {
	t.Helper()
	dir, l := t.TempDir(), listen(t, "127.0.0.1:0")
	a := startAuth(t, filepath.Join(dir, "pki"), l)
	return config(dir, "passthrough:///"+l.Addr().String()), a
}

func deps(log io.Writer) kit.Deps {
	return kit.Deps{
		Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.NewJSONHandler(log, nil)), Out: io.Discard,
	}
}

// running is a service that runs until stop or the end of the test.
type running struct {
	*kit.Host
	cfg  Config
	stop func()
}

func run(t *testing.T, cfg Config, change ...func(*kit.Deps)) *running {
	t.Helper()
	d := deps(t.Output())
	for _, c := range change {
		c(&d)
	}
	a, err := New(t.Context(), cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	r := &running{Host: a, cfg: cfg, stop: func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}}
	t.Cleanup(r.stop)
	select {
	case <-a.Ready():
	case <-limit(t).Done():
		t.Fatal("not ready")
	}
	return r
}

// verify stops the service and proves its books.
func (r *running) verify(t *testing.T) {
	t.Helper()
	r.stop()
	d := deps(t.Output())
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{
		Dir: r.cfg.Data, Clock: d.Clock, Random: d.Random, NewID: id.Generator(d.Clock, d.Random),
	})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := store.Verify(t.Context())
	if err := errors.Join(err, proof.Err(), store.Close()); err != nil {
		t.Error(err)
	}
}

// dial returns a client with the certificate of a peer, and the token of a user where that is not empty.
func dial(t *testing.T, a *running, peer, token string) paymentsv1.PaymentServiceClient {
	t.Helper()
	common := a.cfg.Common
	identity, err := common.Identity(t.Context(), peer, clock.System(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(Name)))}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient("passthrough:///"+a.Addr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return paymentsv1.NewPaymentServiceClient(conn)
}

// bearer is an access token.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func request(key, customer string) *paymentsv1.ChargeRequest {
	return &paymentsv1.ChargeRequest{
		OrderId: "X1", AmountCents: 150, Currency: "EUR", IdempotencyKey: key, CustomerId: customer,
	}
}

func TestChargesAskAuthForTheCustomerAndVerifyTokensWithItsKeys(t *testing.T) {
	t.Parallel()
	cfg, auth := besideAuth(t)
	a := run(t, cfg)

	user := dial(t, a, "gateway", auth.Token(ann, "payments.write", "payments.read"))
	resp, err := user.Charge(limit(t), request("k1", ann))
	if err != nil {
		t.Fatal(err)
	}
	got, err := user.GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: resp.GetPayment().GetPaymentId()})
	if err != nil || !proto.Equal(got.GetPayment(), resp.GetPayment()) {
		t.Errorf("got %v, %v; want %v", got, err, resp)
	}
	_, err = dial(t, a, "gateway", "nonsense").Charge(limit(t), request("k1", ann))
	kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_INVALID")

	orders := dial(t, a, "orders", "")
	_, err = orders.Charge(limit(t), request("k2", nobody))
	kittest.WantFault(t, err, codes.NotFound, "CUSTOMER_NOT_FOUND")
	if _, err = orders.Charge(limit(t), request("k3", bob)); err != nil {
		t.Fatal(err)
	}
	auth.lock(bob)
	_, err = orders.Charge(limit(t), request("k4", bob))
	kittest.WantFault(t, err, codes.FailedPrecondition, "CUSTOMER_INACTIVE")
	if _, err = orders.Charge(limit(t), request("k3", bob)); err != nil {
		t.Errorf("the replay of a charge of someone who is locked now: %v", err)
	}
	a.verify(t)
}

func TestPaymentsStartsWithoutAuthAndChargesOnceItIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a := run(t, config(dir, "passthrough:///"+address))
	orders := dial(t, a, "orders", "")
	_, err := orders.Charge(limit(t), request("k", ann))
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Domain() != "policy.v1" || f.Metadata()["upstream"] != "auth" || strings.Contains(f.Text(), "127.0.0.1") {
		t.Errorf("domain %q, metadata %v, text %q", f.Domain(), f.Metadata(), f.Text())
	}

	auth := startAuth(t, filepath.Join(dir, "pki"), listen(t, address))
	user := dial(t, a, "gateway", auth.Token(ann, "payments.write"))
	ctx := limit(t)
	for {
		_, err = user.Charge(ctx, request("k", ann))
		if err == nil {
			return
		}
		if f := grpcfault.FromError(err); f.Kind() != fault.Unavailable || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestPaymentsAndTheirStreamsOutliveAStop(t *testing.T) {
	t.Parallel()
	cfg, _ := besideAuth(t)
	a := run(t, cfg)
	orders := dial(t, a, "orders", "")
	watch, err := orders.WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.Transaction != nil {
		t.Fatalf("the first response: %v, %v", first, err)
	}
	first, err := orders.Charge(limit(t), request("k1", ann))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || !proto.Equal(got.GetTransaction().GetPayment(), first.GetPayment()) {
		t.Fatalf("got %v, %v", got, err)
	}
	a.stop()
	_, err = watch.Recv()
	f := kittest.WantFault(t, err, codes.Unavailable, "DRAINING")

	a = run(t, cfg)
	orders = dial(t, a, "orders", "")
	var header metadata.MD
	again, err := orders.Charge(limit(t), request("k1", ann), grpc.Header(&header))
	if err != nil || !proto.Equal(again, first) || len(header.Get("idempotency-replayed")) != 1 {
		t.Errorf("got %v, %v, header %v; want %v replayed", again, err, header, first)
	}
	second, err := orders.Charge(limit(t), request("k2", ann))
	if err != nil {
		t.Fatal(err)
	}
	watch, err = orders.WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{ResumeToken: f.Metadata()["resume_token"]})
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.Transaction == nil {
			continue
		}
		if !proto.Equal(got.GetTransaction().GetPayment(), second.GetPayment()) {
			t.Errorf("got %v, want %v", got, second)
		}
		break
	}
	a.verify(t)
}

func TestNewSaysInOneLineWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	busy := listen(t, "127.0.0.1:0")
	good := config(dir, "passthrough:///127.0.0.1:1")
	a, err := New(t.Context(), good, deps(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	for setting, change := range map[string]func(*Config){
		"--listen":   func(c *Config) { c.Listen = settings.Address(busy.Addr().String()) },
		"--data":     func(*Config) {}, // the one above has it
		"--tls-cert": func(c *Config) { c.Data, c.TLSCA, c.TLSCert, c.TLSKey = t.TempDir(), "no", "no", "no" },
	} {
		cfg := good
		change(&cfg)
		b, err := New(t.Context(), cfg, deps(io.Discard))
		if err == nil {
			t.Errorf("%s: it was built", setting)
			b.Close()
			continue
		}
		if text := err.Error(); !strings.Contains(text, setting) || strings.Contains(text, "\n") {
			t.Errorf("%s: %q", setting, text)
		}
	}
}

func TestAServiceThatWasNotRunGivesEverythingFree(t *testing.T) {
	t.Parallel()
	cfg := config(t.TempDir(), "passthrough:///127.0.0.1:1")
	for range 2 {
		a, err := New(t.Context(), cfg, deps(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = settings.Address(a.Addr().String())
		for range 2 {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSettingsHaveTheirDefaults(t *testing.T) {
	t.Parallel()
	program := settings.Program{Name: Name, Description: "a test"}
	var cfg Config
	if err := settings.Parse(program, &cfg, nil, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:50053" || cfg.Data != ".concordat/payments" || cfg.Auth != "dns:///127.0.0.1:50051" {
		t.Errorf("the defaults are %+v", cfg)
	}
	for _, arg := range []string{"--listen=", "--data=", "--auth="} {
		var cfg Config
		err := settings.Parse(program, &cfg, []string{arg}, nil, io.Discard)
		if name := strings.TrimSuffix(arg, "="); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
