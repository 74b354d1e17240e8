package main_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func TestOneProcessTellsOfEachServiceInMetricsAndTraces(t *testing.T) {
	collector := kittest.NewCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Endpoint)
	s := run(t, t.TempDir(), "--trace-ratio=0", "--gateway-caller-traces=follow")
	p := at(t, s.grpc)
	p.signUp(t, "ada@example.com", request1, "")
	p.signIn(t, "ada@example.com")
	watch, err := p.payments.WatchTransactions(p.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: p.id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil { // it is subscribed
		t.Fatal(err)
	}
	const trace, outside = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	plain := p.ctx
	p.ctx = metadata.AppendToOutgoingContext(plain, "traceparent", "00-"+trace+"-"+outside+"-01")
	if _, err := p.charge("k1", 1999); err != nil {
		t.Fatal(err)
	}
	p.ctx = plain
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}

	metrics := scrape(t, s.find(`^ +admin +(http://\S+)`)[1]+"/metrics")
	for _, service := range []string{"auth", "users", "payments"} {
		db := `db_name="` + service + `",pool="`
		of := `service="` + service + `"`
		for _, want := range []string{
			`go_sql_max_open_connections{` + db + `writer",` + of + `} 1`,
			`go_sql_max_open_connections{` + db + `readers",` + of + `} [1-9]\d*`,
			`go_sql_open_connections{` + db + `writer",` + of + `} 1`,
			`go_sql_in_use_connections{` + db + `writer",` + of + `} [01]`,
			`go_sql_idle_connections{` + db + `readers",` + of + `} \d+`,
			`go_sql_wait_count_total{` + db + `writer",` + of + `} \d+`,
			`go_sql_wait_duration_seconds_total{` + db + `readers",` + of + `} \S+`,
			`concordat_sql_writers_waiting{db_name="` + service + `",` + of + `} 0`,
			`concordat_eventlog_newest_sequence{` + of + `} \d+`,
			`concordat_eventlog_lag_events{` + of + `} 0`,
			`concordat_eventlog_lag_seconds{` + of + `} 0`,
			`concordat_eventlog_subscribers{` + of + `} \d+`,
			`concordat_eventlog_subscribers_cut_total{` + of + `} 0`,
		} {
			wantLine(t, metrics, want)
		}
	}
	charge := `grpc_method="Charge",grpc_service="payments.v1.PaymentService",grpc_type="unary",`
	getUser := `grpc_method="GetUser",grpc_service="auth.v1.AuthService",grpc_type="unary",`
	for _, want := range []string{
		`concordat_eventlog_subscribers{service="payments"} 1`,
		`concordat_eventlog_newest_sequence{service="payments"} [1-9]\d*`, // at once, where somebody is subscribed
		`grpc_server_handled_total{grpc_code="OK",` + charge + `service="gateway"} 1`,
		`grpc_client_handled_total{grpc_code="OK",` + charge + `service="gateway"} 1`,
		`grpc_server_handled_total{grpc_code="OK",` + charge + `service="payments"} 1`,
		`grpc_client_started_total{` + getUser + `service="payments"} [1-9]\d*`,
		`grpc_client_handled_total{grpc_code="OK",` + getUser + `service="payments"} [1-9]\d*`,
		`grpc_client_handling_seconds_count{` + getUser + `service="payments"} [1-9]\d*`,
		`grpc_client_handled_total{grpc_code="OK",grpc_method="CreateUser",grpc_service="users.v1.UserService",grpc_type="unary",service="auth"} 1`,
		`concordat_edge_calls_total{grpc_code="OK",grpc_method="Charge",grpc_service="payments.v1.PaymentService",protocol="grpc",service="gateway"} 1`,
	} {
		wantLine(t, metrics, want)
	}

	if code := s.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	spans := collector.Spans(trace)
	parent := outside
	for _, want := range []string{
		"gateway SERVER payments.v1.PaymentService/Charge", "gateway CLIENT payments.v1.PaymentService/Charge",
		"payments SERVER payments.v1.PaymentService/Charge", "payments CLIENT auth.v1.AuthService/GetUser", "auth SERVER auth.v1.AuthService/GetUser",
	} {
		i := slices.IndexFunc(spans, func(s kittest.Span) bool {
			return s.Service+" "+s.Kind+" "+s.Name == want && s.Parent == parent
		})
		if i < 0 {
			t.Fatalf("no span %s is below %s: %+v", want, parent, spans)
		}
		parent = spans[i].ID
	}
}

// What nobody has refused yet is not among the metrics, so that this has each kind of refusal happen once.
func TestWhatPanelsAndAlertsAskForIsExported(t *testing.T) {
	s := run(t, t.TempDir())
	ctx := within(t)
	if _, err := at(t, s.grpc).payments.GetPayment(ctx, &paymentsv1.GetPaymentRequest{}); err == nil {
		t.Error("somebody without a name has read a payment")
	}
	http2 := new(http.Protocols)
	http2.SetUnencryptedHTTP2(true)
	for _, refused := range []struct {
		client *http.Client
		url    string
		header http.Header
	}{
		{http.DefaultClient, "http://" + s.http + "/v1/nothing", nil},
		{&http.Client{Transport: &http.Transport{Protocols: http2}}, "http://" + s.grpc + "/payments.v1.PaymentService/Charge", http.Header{
			"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Ada-Bin": {"*"}, // which is not Base64
		}},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, refused.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = refused.header
		resp, err := refused.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		refused.client.CloseIdleConnections()
	}
	conn, err := net.Dial("tcp", s.users)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, conn) // until it is closed

	lacking := shown(t)
	for len(lacking) > 0 { // some is counted when its connection is closed
		metrics := scrape(t, s.find(`^ +admin +(http://\S+)`)[1]+"/metrics")
		lacking = slices.DeleteFunc(lacking, func(name string) bool {
			return regexp.MustCompile("(?m)^" + name + "[{ ]").MatchString(metrics)
		})
		select {
		case <-ctx.Done():
			t.Fatalf("panels or alerts ask for %q, which nothing exports", lacking)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// shown returns the names of all metrics of ours, of Go's and of the process that the panels and the alerts ask for.
func shown(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, file := range []string{"concordat.json", "rules.yaml"} {
		text, err := os.ReadFile("../../deploy/grafana/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, expr := range regexp.MustCompile(`"?expr"?: .*`).FindAllString(string(text), -1) {
			names = append(names, regexp.MustCompile(`\b(grpc_(server|client)|concordat|go|process)_\w+`).FindAllString(expr, -1)...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 20 {
		t.Fatalf("they ask for no more than %q", names)
	}
	return names
}

// wantLine fails the test unless a line of the metrics is what want says: its name and labels as they are, and a value that
// matches.
func wantLine(t *testing.T, metrics, want string) {
	t.Helper()
	name, value, _ := strings.Cut(want, "} ")
	re := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(name+"} ") + value + "$")
	if !re.MatchString(metrics) {
		got := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(name+"} ") + ".*$").FindString(metrics)
		t.Errorf("the metrics lack %s (%q)", want, got)
	}
}
