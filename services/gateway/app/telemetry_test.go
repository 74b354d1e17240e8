package app

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func withAdmin(c *Config) { c.Admin = "127.0.0.1:0" }

// metrics returns the lines of /metrics.
func (w *world) metrics() []string {
	w.t.Helper()
	resp, err := http.Get("http://" + w.app.AdminAddr().String() + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Split(string(b), "\n")
}

func TestCallsThroughTheEdgeAreCountedByMethodCodeAndProtocol(t *testing.T) {
	w := start(t, withAdmin).ready()
	ctx := w.as(t.Context())
	for name, make := range dialects(t) {
		c, opts := make()
		list := client[paymentsv1.ListPaymentsRequest, paymentsv1.ListPaymentsResponse](w, "/payments.v1.PaymentService/ListPayments", c, opts)
		if _, err := list.CallUnary(t.Context(), authorized(w, &paymentsv1.ListPaymentsRequest{CustomerId: ada})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	payments := paymentsv1.NewPaymentServiceClient(w.conn())
	if _, err := payments.Charge(ctx, chargeOf("k", 1999)); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"/payments.v1.PaymentService/Nothing", "/nobody.v1.None/Nothing"} {
		if err := w.conn().Invoke(ctx, method, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := healthpb.NewHealthClient(w.conn()).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	w.do("POST", "/v1/charges", charge("k2", "49"), jsonType, w.bearer())        // refused by the service
	w.do("POST", "/v1/charges", `{"amount_cents":"many"}`, jsonType, w.bearer()) // refused by the edge
	w.do("POST", "/v1/charges?order_id=1", charge("k3", "1999"), jsonType, w.bearer())
	w.do("GET", "/nowhere", "")
	w.do("GET", "/readyz", "")
	w.do("POST", "/readyz", "")

	// What the transport refuses by itself never gets to a handler.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.grpc+"/payments.v1.PaymentService/GetPayment", strings.NewReader(frame(1, "x")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Encoding": {"snappy"}, "X-Request-Id": {"packed"}}
	w.send(h2c(t), req)

	const method = `grpc_method="ListPayments",grpc_service="payments.v1.PaymentService"`
	const charges = `grpc_method="Charge",grpc_service="payments.v1.PaymentService",grpc_type="unary",service="gateway"} `
	want := []string{
		`concordat_edge_calls_total{grpc_code="OK",` + method + `,protocol="connect",service="gateway"} 4`,
		`concordat_edge_calls_total{grpc_code="OK",` + method + `,protocol="grpc-web",service="gateway"} 2`,
		`concordat_edge_calls_total{grpc_code="OK",grpc_method="Charge",grpc_service="payments.v1.PaymentService",protocol="grpc",service="gateway"} 1`,
		`concordat_edge_calls_total{grpc_code="InvalidArgument",grpc_method="Charge",grpc_service="payments.v1.PaymentService",protocol="rest",service="gateway"} 2`,
		`concordat_edge_calls_total{grpc_code="Unimplemented",grpc_method="_OTHER",grpc_service="_OTHER",protocol="grpc",service="gateway"} 2`,
		`concordat_edge_calls_total{grpc_code="Unimplemented",grpc_method="GetPayment",grpc_service="payments.v1.PaymentService",protocol="grpc",service="gateway"} 1`,
		`concordat_edge_requests_total{protocol="rest",service="gateway",status="400"} 1`,
		`concordat_edge_requests_total{protocol="rest",service="gateway",status="404"} 1`,
		`concordat_edge_requests_total{protocol="page",service="gateway",status="200"} 1`,
		`concordat_edge_requests_total{protocol="page",service="gateway",status="405"} 1`,
		`grpc_server_started_total{` + charges + `3`,
		`grpc_server_in_flight{` + charges + `0`,
		`grpc_server_msg_received_total{` + charges + `2`,
		`grpc_server_msg_sent_total{` + charges + `1`,
		`grpc_server_handled_total{grpc_code="OK",` + charges + `1`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",` + charges + `2`,
		`grpc_server_handling_seconds_count{` + charges + `3`,
		`grpc_server_faults_total{grpc_method="Charge",grpc_service="payments.v1.PaymentService",reason="INVALID_REQUEST",service="gateway"} 1`,
		`grpc_server_faults_total{grpc_method="Charge",grpc_service="payments.v1.PaymentService",reason="MALFORMED_REQUEST",service="gateway"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Check",grpc_service="grpc.health.v1.Health",grpc_type="unary",service="gateway"} 1`,
		`grpc_client_handled_total{grpc_code="OK",grpc_method="Charge",grpc_service="payments.v1.PaymentService",grpc_type="unary",service="gateway"} 1`,
		`grpc_client_handled_total{grpc_code="InvalidArgument",grpc_method="Charge",grpc_service="payments.v1.PaymentService",grpc_type="unary",service="gateway"} 1`,
	}
	got := w.metrics()
	for end := time.Now().Add(5 * time.Second); ; got = w.metrics() { // what is told of comes after the answer
		missing := slices.DeleteFunc(slices.Clone(want), func(line string) bool { return slices.Contains(got, line) })
		if len(missing) == 0 {
			break
		}
		if time.Now().After(end) {
			for _, line := range missing {
				t.Errorf("missing: %s", line)
			}
			for _, line := range got {
				if strings.HasPrefix(line, "concordat_edge") {
					t.Log(line)
				}
			}
			break
		}
	}
	if slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "nobody") || strings.Contains(line, "Nothing") }) {
		t.Error("a name that nobody declared is in the metrics")
	}
	if n := strings.Count(w.log.String(), `"request_id":"packed"`); n != 1 {
		t.Errorf("the call that the transport refused has %d lines", n)
	}
}

func TestATraceGoesOnThroughTheEdgeWhereItFollowsCallers(t *testing.T) {
	const outside = "b7ad6b7169203331"
	for name, tc := range map[string]struct {
		protocol, trace string
		call            func(w *world, parent string) error
	}{
		"gRPC": {"grpc", "0af7651916cd43dd8448eb211c80319c", func(w *world, parent string) error {
			ctx := metadata.AppendToOutgoingContext(w.as(t.Context()), "traceparent", parent, "tracestate", "vendor=1", "x-flags", "forged", "x-concordat-client", "shop/1.0")
			_, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999))
			return err
		}},
		"REST": {"rest", "1af7651916cd43dd8448eb211c80319c", func(w *world, parent string) error {
			if r := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer(), "traceparent: "+parent, "tracestate: vendor=1", "x-flags: forged", "x-concordat-client: shop/1.0"); r.code != http.StatusOK {
				return connect.NewError(connect.CodeUnknown, io.ErrUnexpectedEOF)
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := kittest.NewCollector(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.Endpoint)
			w := start(t, func(c *Config) { c.PropagateMetadata, c.CallerTraces = []string{"x-flags"}, "follow" }).ready()
			if err := tc.call(w, "00-"+tc.trace+"-"+outside+"-01"); err != nil {
				t.Fatal(err)
			}
			w.stop()
			if err := <-w.done; err != nil {
				t.Errorf("Run: %v", err)
			}
			close(w.done)
			spans := c.Spans(tc.trace)
			at := func(kind string) kittest.Span {
				i := slices.IndexFunc(spans, func(s kittest.Span) bool { return s.Kind == kind })
				if i < 0 {
					t.Fatalf("no span is that of a %s: %+v", kind, spans)
				}
				return spans[i]
			}
			edge, forwarded := at("SERVER"), at("CLIENT")
			if len(spans) != 2 || edge.Parent != outside || forwarded.Parent != edge.ID {
				t.Errorf("%d spans: edge %+v, forwarded %+v", len(spans), edge, forwarded)
			}
			for _, s := range spans {
				if s.Service != "gateway" || s.Name != "payments.v1.PaymentService/Charge" || s.Attributes["rpc.grpc.status_code"] != "0" {
					t.Errorf("%+v", s)
				}
			}
			if edge.Attributes["concordat.client"] != "shop/1.0" || !strings.Contains(w.log.String(), `"client":"shop/1.0"`) {
				t.Errorf("the edge does not say what its client is: %v", edge.Attributes)
			}
			if got := w.money.headers["x-concordat-client"]; len(got) != 1 || !strings.HasPrefix(got[0], "gateway/") {
				t.Errorf("the service is told that its client is %q", got)
			}
			if edge.Attributes["concordat.edge.protocol"] != tc.protocol || edge.Attributes["client.address"] != "127.0.0.1" {
				t.Errorf("the edge says %v", slices.Sorted(maps.Keys(edge.Attributes)))
			}
			w.money.mu.Lock()
			defer w.money.mu.Unlock()
			want := "00-" + tc.trace + "-" + forwarded.ID + "-01"
			if got := w.money.headers["traceparent"]; !slices.Equal(got, []string{want}) {
				t.Errorf("the service is told %v, want %s", got, want)
			}
			if got := w.money.headers["tracestate"]; !slices.Equal(got, []string{"vendor=1"}) {
				t.Errorf("tracestate %v", got)
			}
			if got := w.money.headers["x-flags"]; got != nil {
				t.Errorf("somebody outside says %v to the services", got)
			}
			if log := w.log.String(); strings.Count(log, `"trace_id":"`+tc.trace+`"`) != 1 {
				t.Errorf("the log does not name the trace once:\n%s", log)
			}
		})
	}
}

// A stranger can neither have a call recorded nor keep one from it, whatever flag and id they choose.
func TestAStrangersTraceDecidesNothing(t *testing.T) {
	const (
		low     = "0af7651916cd43dd0000000000000001" // which a ratio by the id records always
		high    = "0af7651916cd43ddffffffffffffffff" // and this one never, below 1
		outside = "b7ad6b7169203331"
	)
	for name, tc := range map[string]struct {
		traces string // the setting
		ratio  float64
		quiet  bool // nobody takes spans
		parent string
		spans  int
		kept   bool   // of the caller's trace
		linked bool   // to it
		flags  string // that the service is told; "" for no traceparent
	}{
		"recorded outside, none wanted":                   {ratio: 0, parent: low + "-" + outside + "-01", flags: "00"},
		"recorded outside, few wanted, an id below":       {ratio: 1e-9, parent: low + "-" + outside + "-01", flags: "00"},
		"not recorded outside, all wanted":                {ratio: 1, parent: high + "-" + outside + "-00", spans: 2, linked: true, flags: "01"},
		"recorded outside, nobody takes spans":            {ratio: 1, quiet: true, parent: low + "-" + outside + "-01"},
		"kept: recorded outside, none wanted":             {traces: "keep", ratio: 0, parent: low + "-" + outside + "-01", kept: true, flags: "00"},
		"kept: recorded outside, few wanted, an id below": {traces: "keep", ratio: 1e-9, parent: low + "-" + outside + "-01", kept: true, flags: "00"},
		"kept: not recorded outside, all wanted":          {traces: "keep", ratio: 1, parent: high + "-" + outside + "-00", spans: 2, kept: true, flags: "01"},
		"kept: nobody takes spans, none wanted":           {traces: "keep", ratio: 0, quiet: true, parent: low + "-" + outside + "-01", kept: true, flags: "00"},
		"kept: nobody takes spans, all wanted":            {traces: "keep", ratio: 1, quiet: true, parent: low + "-" + outside + "-00", kept: true, flags: "01"},
	} {
		t.Run(name, func(t *testing.T) {
			c := kittest.NewCollector(t)
			if !tc.quiet {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.Endpoint)
			}
			w := start(t, func(c *Config) { c.CallerTraces, c.TraceRatio = tc.traces, tc.ratio }).ready()
			if r := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer(), "traceparent: 00-"+tc.parent, "tracestate: vendor=1"); r.code != http.StatusOK {
				t.Fatalf("%d %s", r.code, r.body)
			}
			w.stop()
			if err := <-w.done; err != nil {
				t.Errorf("Run: %v", err)
			}
			close(w.done)
			id := tc.parent[:32]
			spans := slices.DeleteFunc(c.All(), func(s kittest.Span) bool { return s.Name != "payments.v1.PaymentService/Charge" })
			if len(spans) != tc.spans {
				t.Errorf("%d spans, want %d: %+v", len(spans), tc.spans, spans)
			}
			for _, s := range spans {
				if (s.Trace == id) != tc.kept || (s.Kind == "SERVER") != slices.Equal(s.Links, []string{id}) && tc.linked || !tc.linked && s.Links != nil {
					t.Errorf("trace %s, links %v", s.Trace, s.Links)
				}
				if want := map[bool]string{true: outside}[tc.kept]; s.Kind == "SERVER" && s.Parent != want {
					t.Errorf("parent %q, want %q", s.Parent, want)
				}
			}
			w.money.mu.Lock()
			defer w.money.mu.Unlock()
			told := strings.Join(w.money.headers["traceparent"], " ")
			if tc.flags == "" {
				if told != "" {
					t.Errorf("the service is told %s", told)
				}
			} else if !strings.HasSuffix(told, "-"+tc.flags) || strings.Contains(told, id) != tc.kept {
				t.Errorf("the service is told %q", told)
			}
			if got := w.money.headers["tracestate"]; tc.kept != slices.Equal(got, []string{"vendor=1"}) {
				t.Errorf("tracestate %v", got)
			}
		})
	}
}
