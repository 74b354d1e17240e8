package kit_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// page returns what the admin port shows.
func page(t *testing.T, h *kit.Host, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + h.AdminAddr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func host(t *testing.T, clk clock.Clock, handlers echo.Handlers, check func(context.Context) error, change ...func(*kit.Common)) *kit.Host {
	t.Helper()
	common := kit.Common{PKI: t.TempDir(), TrustDomain: "concordat", DrainTimeout: 5 * time.Second, TraceRatio: 1}
	for _, c := range change {
		c(&common)
	}
	h, err := kit.NewHost(t.Context(), kit.HostConfig{
		Name: "test", Listen: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Common: common,
		Deps:   kit.Deps{Clock: clk, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard},
	}, func(h *kit.Host) error {
		return h.Serves(nil, map[string]func(context.Context) error{"store": check}, handlers.Register)
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// call calls the service of the host.
func call(ctx context.Context, t *testing.T, h *kit.Host, method string) error {
	t.Helper()
	return callWith(ctx, t, h, method, "")
}

// callWith is call with a text.
func callWith(ctx context.Context, t *testing.T, h *kit.Host, method, text string) error {
	t.Helper()
	conn, err := grpc.NewClient(h.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(h.Identity.ClientTLS("test"))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.Invoke(ctx, method, echo.Message(text, ""), echo.Message("", ""))
}

func TestTheAdminPortFollowsTheServiceFromItsStartToItsEnd(t *testing.T) {
	began := time.Now()
	clk := clocktest.New(began)
	var broken atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	h := host(t, clk, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		close(entered)
		<-release
		return req, nil
	}}, func(context.Context) error {
		if broken.Load() {
			return errors.New("disk is gone")
		}
		return nil
	})
	if status, body := page(t, h, "/readyz"); status != 503 || !strings.Contains(body, "serving: the server has not begun") {
		t.Errorf("before it serves: %d %q", status, body)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	if status, body := page(t, h, "/readyz"); status != 200 || body != "serving: ok\nstore: ok\n" {
		t.Errorf("%d %q", status, body)
	}
	if _, metrics := page(t, h, "/metrics"); !strings.Contains(metrics, `concordat_ready{service="test"} 1`) {
		t.Error("concordat_ready is not 1")
	}
	broken.Store(true)
	for found := false; !found; { // the checks are asked again once their time has come
		clk.Advance(10 * time.Second)
		status, body := page(t, h, "/readyz")
		found = status == 503 && strings.Contains(body, "store: disk is gone")
		if clk.Now().After(began.Add(time.Hour)) {
			t.Fatalf("with a broken store: %d %q", status, body)
		}
	}
	_, info := page(t, h, "/buildinfo")
	_, metrics := page(t, h, "/metrics")
	_, rest, _ := strings.Cut(metrics, `concordat_contract_info{digest="`)
	digest, _, _ := strings.Cut(rest, `"`)
	if len(digest) != 64 || !strings.Contains(info, digest) {
		t.Errorf("digest %q; build info %s", digest, info)
	}
	answered := make(chan error, 1)
	go func() { answered <- call(t.Context(), t, h, echo.Public) }()
	<-entered
	stop()
	for { // the drain has begun once it says so; the call keeps it from ending
		status, body := page(t, h, "/readyz")
		if strings.Contains(body, "serving: the server is stopping") && status == 503 {
			break
		}
	}
	_, metrics = page(t, h, "/metrics")
	if want := `grpc_server_in_flight{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("while it drains the metrics miss %s", want)
	}
	close(release)
	if err := errors.Join(<-answered, <-done); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", h.AdminAddr().String()); err == nil {
		t.Error("the admin port is open after the end")
	}
}

type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	names chan string
}

func (c collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.names <- s.GetName()
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func TestTheLastSpansAreSentBeforeTheServiceEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, s := collector{names: make(chan string, 10)}, grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	h := host(t, clock.System(), echo.Handlers{}, func(context.Context) error { return nil })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	if err := call(metadata.AppendToOutgoingContext(ctx, "x-request-id", "r"), t, h, echo.Public); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	select {
	case name := <-c.names:
		if name != "echo.v1.EchoService/Public" {
			t.Errorf("span %s", name)
		}
	default:
		t.Error("the span of the last call was not sent")
	}
}

func TestTheAdminPortShowsWhatIsUsedWhereThatIsAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name   string
		sample uint32
		want   []string // of the callers of the request's text
	}{
		{"by default", 0, nil},
		{"every message", 1, []string{"test"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t, clock.System(), echo.Handlers{}, func(context.Context) error { return nil }, func(c *kit.Common) { c.UsageSample = tc.sample })
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			<-h.Ready()
			if err := callWith(t.Context(), t, h, echo.Public, "secret"); err != nil {
				t.Fatal(err)
			}
			status, body := page(t, h, "/usage")
			var s usage.Snapshot
			if err := json.Unmarshal([]byte(body), &s); err != nil || status != 200 {
				t.Fatalf("%d %v %s", status, err, body)
			}
			var callers []string
			for _, e := range s.Entries {
				if e.Direction == usage.Request && e.Message == "echo.v1.Message" && e.Field == "text" {
					callers = append(callers, e.Caller)
				}
			}
			if s.Service != "test" || s.SampledOneIn != tc.sample || !slices.Equal(callers, tc.want) {
				t.Errorf("callers %v in %s", callers, body)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConnectionsOfAnAddressAreBoundedAsTheSettingSays(t *testing.T) {
	for _, tc := range []struct {
		name   string
		bound  int
		refuse bool // the second connection
	}{{"one", 1, true}, {"no bound", -1, false}, {"the default", 0, false}} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t, clock.System(), echo.Handlers{}, func(context.Context) error { return nil }, func(c *kit.Common) { c.ConnectionsPerAddress = tc.bound })
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			<-h.Ready()
			open, err := tls.Dial("tcp", h.Addr().String(), h.Identity.ClientTLS("test"))
			if err != nil {
				t.Fatal(err)
			}
			if err := call(ctx, t, h, echo.Public); (err != nil) != tc.refuse {
				t.Errorf("over a second connection: %v", err)
			}
			_, metrics := page(t, h, "/metrics")
			if told := strings.Contains(metrics, `concordat_connections_refused_total{reason="too_many_of_address",service="test"}`); told != tc.refuse {
				t.Errorf("the metrics tell of a refusal: %t", told)
			}
			if err := open.Close(); err != nil {
				t.Fatal(err)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnAdminPortThatOthersReachNeedsToBeAllowed(t *testing.T) {
	for _, tc := range []struct {
		address settings.Address
		allowed bool
		wrong   bool
	}{
		{"127.0.0.1:51051", false, false}, {"", false, false}, {"localhost:1", false, false},
		{"0.0.0.0:51051", false, true}, {":51051", false, true}, {"0.0.0.0:51051", true, false},
	} {
		c := kit.Common{AdminBeyondLoopback: tc.allowed}
		if got := c.ValidateAdmin(&tc.address); (len(got) == 1) != tc.wrong {
			t.Errorf("%q, allowed %v: %v", tc.address, tc.allowed, got)
		}
	}
	c := kit.Common{DrainTimeout: 1, ConnectionsPerAddress: 1000, Issuer: "i", Audience: "a", TraceRatio: 2, PropagateMetadata: []string{"authorization"}}
	if got := c.Validate(); len(got) != 2 {
		t.Errorf("a ratio of 2 and a token that goes on: %d problems, want 2", len(got))
	}
}

func TestMetadataThatIsToGoOnGoesOnFromAService(t *testing.T) {
	carried := make(chan metadata.MD, 1)
	h := host(t, clock.System(), echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		out, _ := metadata.FromOutgoingContext(telemetry.Outgoing(ctx))
		carried <- out
		return req, nil
	}}, func(context.Context) error { return nil }, func(c *kit.Common) { c.PropagateMetadata = []string{"x-flags"} })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	if err := call(metadata.AppendToOutgoingContext(ctx, "x-flags", "dark", "x-other", "1"), t, h, echo.Public); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if out := <-carried; !slices.Equal(out.Get("x-flags"), []string{"dark"}) || out.Get("x-other") != nil {
		t.Errorf("what goes on is %v", out)
	}
}
