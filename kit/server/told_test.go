package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

func TestALineSaysWhoItWasHowLongItTookAndHowMuchThereWas(t *testing.T) {
	const took = 1234567 * time.Microsecond
	clk := clocktest.New(time.Now())
	reply := echo.Message("fine", "somebody")
	h := kittest.Start(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
		clk.Advance(took)
		return reply, nil
	}}.Register, func(o *kittest.Options) { o.Clock = clk })
	request := echo.Message("hello", "u1")
	ctx := metadata.AppendToOutgoingContext(t.Context(), server.ClientAddressHeader, "198.51.100.1")
	if err := h.As("u1", "echo").Invoke(ctx, echo.Own, request, echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := h.AsService("orders").Invoke(t.Context(), echo.Public, request, echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]map[string]any{
		echo.Own:    {"user": "u1", "peer": "gateway", "address": "198.51.100.1"},
		echo.Public: {"user": nil, "peer": "orders", "address": "bufconn"},
	} {
		want["took"] = float64(took)
		want["code"] = "OK"
		want["received"], want["received_bytes"] = 1.0, float64(proto.Size(request))
		want["sent"], want["sent_bytes"] = 1.0, float64(proto.Size(reply))
		var line map[string]any
		if err := json.Unmarshal([]byte(logged(t, h, `"method":"`+method+`"`)), &line); err != nil {
			t.Fatal(err)
		}
		for field, value := range want {
			if line[field] != value {
				t.Errorf("%s: %s is %v, want %v", method, field, line[field], value)
			}
		}
	}
}

func TestTheMetricsSayWhenTheCertificateEndsAndWhetherTheServiceIsReady(t *testing.T) {
	var broken atomic.Bool
	clk := clocktest.New(time.Now())
	tt := collecting(t)
	tt.Harness = kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) {
		o.Telemetry, o.Clock = tt.tele, clk
		o.Checks = map[string]func(context.Context) error{"store": func(context.Context) error {
			if broken.Load() {
				return errors.New("the store is gone")
			}
			return nil
		}}
	})
	end := tt.Identity("test").NotAfter() // of the file that the server has read
	if d := time.Until(end); d <= 0 {
		t.Fatalf("the certificate has ended %s ago", -d)
	}
	tt.until(`concordat_certificate_not_after_seconds{service="test"}`, float64(end.Unix()))
	tt.until(`concordat_ready{service="test"}`, 1)
	broken.Store(true)
	tick(t, clk)
	tt.until(`concordat_ready{service="test"}`, 0)
	broken.Store(false)
	tick(t, clk)
	tt.until(`concordat_ready{service="test"}`, 1)
}

func TestDurationsAreInNativeHistogramsToo(t *testing.T) {
	clk := clocktest.New(time.Now())
	tt := collecting(t)
	tt.Harness = kittest.Start(t, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		clk.Advance(100 * time.Millisecond)
		return req, nil
	}}.Register, func(o *kittest.Options) { o.Telemetry, o.Clock = tt.tele, clk })
	if _, err := echo.Call(t, tt.Anonymous(), echo.Public, "", ""); err != nil {
		t.Fatal(err)
	}
	tt.end()
	families, err := tt.tele.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "grpc_server_handling_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h.GetSampleCount() == 0 {
				continue
			}
			// Schema 3 has eight buckets to a power of two: each is 9 % wide.
			if h.GetSchema() != 3 || len(h.GetPositiveSpan()) != 1 || len(h.GetPositiveDelta()) != 1 || h.GetPositiveDelta()[0] != 1 {
				t.Errorf("native: schema %d, spans %v, counts %v", h.GetSchema(), h.GetPositiveSpan(), h.GetPositiveDelta())
			}
			for _, b := range h.GetBucket() {
				if want := map[bool]uint64{true: 1}[b.GetUpperBound() >= 0.1]; b.GetCumulativeCount() != want {
					t.Errorf("classic: %d up to %g", b.GetCumulativeCount(), b.GetUpperBound())
				}
			}
			return
		}
	}
	t.Error("nothing was observed")
}

func TestADeadlineThatIsTooShortIsNotStartedFor(t *testing.T) {
	var handled atomic.Int64
	h, address := onPort(t, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		handled.Add(1)
		return req, nil
	}})
	w := dialWire(t, h, address)
	stream, hopeless := uint32(1), 0
	for range 50 {
		a := w.call(stream, echo.Public, message(false, nil), "grpc-timeout", "1900u")
		stream += 2
		if a.fields == nil {
			continue // its time was over on the way back
		}
		a.want(t, codes.DeadlineExceeded)
		if a.reason(t) == "DEADLINE_TOO_SHORT" {
			hopeless++
		}
	}
	if n := handled.Load(); n != 0 || hopeless == 0 {
		t.Errorf("%d calls were started, %d were told why not", n, hopeless)
	}
	w.call(stream, echo.Public, message(false, nil), "grpc-timeout", "1S").want(t, codes.OK)
}

func TestACallWhoseTimeIsOverByThenIsNotRepeated(t *testing.T) {
	for wait, want := range map[time.Duration]string{100 * time.Millisecond: "100", 5 * time.Second: "-1"} {
		h := kittest.Start(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
			return nil, fault.New(fault.Unavailable, "BUSY", "x").WithRetryAfter(wait)
		}}.Register)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var trailer metadata.MD
		err := h.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.Trailer(&trailer))
		if f := kittest.WantFault(t, err, codes.Unavailable, "BUSY"); f.RetryAfter() != wait {
			t.Errorf("retry after %s, want %s", f.RetryAfter(), wait)
		}
		if got := strings.Join(trailer.Get("grpc-retry-pushback-ms"), ","); got != want {
			t.Errorf("told to come back in %s with a second left: %q, want %q", wait, got, want)
		}
	}
}

func TestARequestIDHas64CharactersAtMost(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	for size, taken := range map[int]bool{1: true, 64: true, 65: false, 4000: false} {
		sent := strings.Repeat("x", size)
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), server.RequestIDHeader, sent)
		if err := h.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		if got := header.Get(server.RequestIDHeader); len(got) != 1 || (got[0] == sent) != taken || len(got[0]) > 64 {
			t.Errorf("%d characters are answered with %q", size, got)
		}
	}
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), server.RequestIDHeader, "one", server.RequestIDHeader, "two")
	if err := h.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(server.RequestIDHeader); len(got) != 1 || len(got[0]) != 36 {
		t.Errorf("two ids are answered with %q", got)
	}
}

func TestWhatIsRefusedAsItArrivesNamesItsRequest(t *testing.T) {
	h, address := onPort(t, echo.Handlers{})
	w := dialWire(t, h, address)
	a := w.call(1, "no-method", message(false, nil), "x-request-id", "order-7")
	a.want(t, codes.Unimplemented)
	st := a.status(t)
	named := ""
	for _, d := range st.GetDetails() {
		var info errdetails.RequestInfo
		if d.MessageIs(&info) {
			if err := d.UnmarshalTo(&info); err != nil {
				t.Fatal(err)
			}
			named = info.GetRequestId()
		}
	}
	if named != "order-7" {
		t.Errorf("the details name %q: %v", named, st)
	}
	logged(t, h, `"request_id":"order-7"`)
}

func TestTheEdgeNamesOneAddressOrNone(t *testing.T) {
	var seen atomic.Value
	h := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		seen.Store(identity.From(ctx).Address)
		return req, nil
	}}.Register)
	for _, tc := range []struct {
		named []string
		want  string
	}{
		{nil, "bufconn"}, {[]string{""}, "bufconn"}, {[]string{"198.51.100.1", "198.51.100.2"}, "bufconn"}, {[]string{"198.51.100.1"}, "198.51.100.1"},
	} {
		ctx := t.Context()
		for _, a := range tc.named {
			ctx = metadata.AppendToOutgoingContext(ctx, server.ClientAddressHeader, a)
		}
		if err := h.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
			t.Fatal(err)
		}
		if seen.Load() != tc.want {
			t.Errorf("%q: the call is from %v, want %s", tc.named, seen.Load(), tc.want)
		}
	}
}

func TestACallThatNoHandlerTookUpIsToldOfByWhatEndedIt(t *testing.T) {
	var log kittest.Log
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	tele, err := telemetry.New(t.Context(), telemetry.Config{Registry: prometheus.NewRegistry(), Log: logger, Now: time.Now, Random: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	s := quietServer(t, logger, tele)
	for name, tc := range map[string]struct {
		timeout      time.Duration
		cancelled    bool
		reason, code string
	}{
		"its time was over":          {100 * time.Millisecond, false, "DEADLINE_EXCEEDED", "DeadlineExceeded"},
		"the transport has ended it": {time.Hour, true, "UNIMPLEMENTED", "Unimplemented"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
		end := func() {}
		if tc.cancelled {
			end = cancel
		}
		reason, err := server.Lose(ctx, s, &tap.Info{FullMethodName: echo.Chat, Header: metadata.Pairs("x-request-id", tc.code)}, end)
		cancel()
		if err != nil || reason != tc.reason {
			t.Errorf("%s: told as %q, %v; want %s", name, reason, err, tc.reason)
		}
		if want := fmt.Sprintf(`"code":"%s"`, tc.code); !strings.Contains(log.String(), want) {
			t.Errorf("%s: the log misses %s:\n%s", name, want, &log)
		}
	}
}
