package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func chargeOf(key string, cents int64) *paymentsv1.ChargeRequest {
	return &paymentsv1.ChargeRequest{CustomerId: ada, OrderId: "o", AmountCents: cents, Currency: "EUR", IdempotencyKey: key}
}

func TestGRPCPassesAllFourKindsOfCall(t *testing.T) {
	w := start(t).ready()
	payments, users := paymentsv1.NewPaymentServiceClient(w.conn()), usersv1.NewUserServiceClient(w.conn())
	ctx := w.as(t.Context())

	var header metadata.MD
	first, err := payments.Charge(ctx, chargeOf("k", 1999), grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	if got := header.Get("x-request-id"); len(got) != 1 || got[0] == "" {
		t.Errorf("x-request-id is %q", got)
	}
	second, err := payments.Charge(ctx, chargeOf("k", 1999), grpc.Header(&header), grpc.UseCompressor(gzip.Name))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(first, second) || !slices.Equal(header.Get("idempotency-replayed"), []string{"true"}) {
		t.Errorf("replay: %v, idempotency-replayed %q", second, header.Get("idempotency-replayed"))
	}

	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := payments.WatchTransactions(watching, &paymentsv1.WatchTransactionsRequest{CustomerId: ada})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := watch.Header(); err != nil || len(h.Get("x-request-id")) != 1 { // they come before any message
		t.Errorf("headers of a stream: %v, %v", h, err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}

	both, err := payments.ProcessCharges(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*paymentsv1.ChargeRequest{chargeOf("b1", 100), chargeOf("b2", 1), chargeOf("b3", 300)} {
		if err := both.Send(&paymentsv1.ProcessChargesRequest{Charge: c}); err != nil {
			t.Fatal(err)
		}
		resp, err := both.Recv() // before the next is sent
		if err != nil || resp.GetIdempotencyKey() != c.GetIdempotencyKey() || (resp.GetPayment() == nil) != (c.GetAmountCents() == 1) {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if err := both.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after half-close: %v", err)
	}
	for _, want := range []int64{100, 300} {
		if resp, err := watch.Recv(); err != nil || resp.GetTransaction().GetPayment().GetAmountCents() != want {
			t.Fatalf("event: %v, %v; want %d", resp, err, want)
		}
	}
	cancel()
	if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("after the caller left: %v", err)
	}

	up, err := users.CreateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const rows = 500
	for range rows {
		if err := up.Send(&usersv1.CreateUsersRequest{User: &usersv1.CreateUserRequest{Email: "a@example.com", DisplayName: "x", RequestId: ada}}); err != nil {
			t.Fatal(err)
		}
	}
	if resp, err := up.CloseAndRecv(); err != nil || resp.GetCreatedCount() != rows {
		t.Fatalf("%v, %v", resp, err)
	}
	down, err := users.StreamUsers(ctx, &usersv1.StreamUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		if _, err := down.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != rows {
		t.Errorf("%d of %d users", n, rows)
	}
}

func TestUnknownFieldsSurviveTheWay(t *testing.T) {
	w := start(t).ready()
	req := &usersv1.GetUserRequest{UserId: ada}
	future := protowire.AppendString(protowire.AppendTag(nil, 4711, protowire.BytesType), "a field of tomorrow")
	req.ProtoReflect().SetUnknown(future)
	resp, err := usersv1.NewUserServiceClient(w.conn()).GetUser(w.as(t.Context()), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.profiles.last.ProtoReflect().GetUnknown(); string(got) != string(future) {
		t.Errorf("the service got %q", got)
	}
	if got := resp.GetUser().ProtoReflect().GetUnknown(); string(got) != string(future) {
		t.Errorf("the caller got %q", got)
	}
}

func TestStatusesPassAsTheyAre(t *testing.T) {
	w := start(t).ready()
	payments := paymentsv1.NewPaymentServiceClient(w.conn())
	var header, trailer metadata.MD
	_, err := payments.Charge(w.as(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "my-request.1")), chargeOf("k", 49),
		grpc.Header(&header), grpc.Trailer(&trailer))
	// Headers before an error would keep a client from repeating the call.
	if !slices.Equal(trailer.Get("x-request-id"), []string{"my-request.1"}) || header.Get("x-request-id") != nil {
		t.Errorf("x-request-id is %q in the headers and %q in the trailers", header.Get("x-request-id"), trailer.Get("x-request-id"))
	}
	f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	kittest.WantViolations(t, f, "amount_cents")
	found := false
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RequestInfo); ok {
			found = info.GetRequestId() == "my-request.1"
		}
	}
	if !found {
		t.Errorf("details: %v", status.Convert(err).Details())
	}
	_, err = payments.GetPayment(w.as(t.Context()), &paymentsv1.GetPaymentRequest{PaymentId: ada})
	kittest.WantFault(t, err, codes.NotFound, "PAYMENT_NOT_FOUND")
	_, err = payments.GetPayment(t.Context(), &paymentsv1.GetPaymentRequest{PaymentId: ada})
	kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")

	var out paymentsv1.ChargeResponse
	err = w.conn().Invoke(w.as(t.Context()), "/payments.v1.PaymentService/Nothing", chargeOf("k", 100), &out)
	kittest.WantFault(t, err, codes.Unimplemented, "UNIMPLEMENTED")
	err = w.conn().Invoke(t.Context(), "/payments.v1.PaymentService/Charge/", chargeOf("k", 100), &out)
	kittest.WantFault(t, err, codes.Unimplemented, "UNIMPLEMENTED")
}

func TestTheEdgeIsNoService(t *testing.T) {
	w := start(t).ready()
	auth := authv1.NewAuthServiceClient(w.conn())
	for name, ctx := range map[string]context.Context{
		"anonymous":         t.Context(),
		"with a token":      w.as(t.Context()),
		"with a bad token":  metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer nonsense"),
		"in another's name": metadata.AppendToOutgoingContext(t.Context(), "x-concordat-peer", "payments", "x-forwarded-client-cert", "URI=spiffe://concordat/payments"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := auth.GetUser(ctx, &authv1.GetUserRequest{UserId: ada})
			kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
			_, err = auth.ValidateUser(ctx, &authv1.ValidateUserRequest{Username: "a@example.com", Password: "x"})
			kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
		})
	}
}

func TestCallersCannotSpeakInTheNameOfTheEdge(t *testing.T) {
	w := start(t).ready()
	spoof := []string{"x-concordat-client-address", "203.0.113.9", "x-forwarded-for", "203.0.113.9", "x-internal", "1", "cookie", "a=b",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	ctx := metadata.AppendToOutgoingContext(w.as(t.Context()), spoof...)
	if _, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999)); err != nil {
		t.Fatal(err)
	}
	check := func(how string) {
		t.Helper()
		w.money.mu.Lock()
		defer w.money.mu.Unlock()
		if w.money.address != "127.0.0.1" || !slices.Equal(w.money.headers["x-concordat-client-address"], []string{"127.0.0.1"}) {
			t.Errorf("%s: the service takes the caller for %q (%q)", how, w.money.address, w.money.headers["x-concordat-client-address"])
		}
		for _, name := range []string{"x-internal", "cookie", "x-forwarded-for"} {
			if v := w.money.headers[name]; v != nil {
				t.Errorf("%s: %s passes: %q", how, name, v)
			}
		}
		for _, trace := range w.money.headers["traceparent"] {
			if strings.Contains(trace, "0af7651916cd43dd8448eb211c80319c") {
				t.Errorf("%s: the service's trace is the caller's: %q", how, trace)
			}
		}
		if len(w.money.headers["x-request-id"]) != 1 {
			t.Errorf("%s: x-request-id %q", how, w.money.headers["x-request-id"])
		}
		w.money.headers, w.money.address = nil, ""
	}
	check("gRPC")
	headers := []string{jsonType, w.bearer()}
	for i := 0; i < len(spoof); i += 2 {
		headers = append(headers, spoof[i]+": "+spoof[i+1])
	}
	if r := w.do("POST", "/v1/charges", charge("k2", "1999"), headers...); r.code != 200 {
		t.Fatalf("%d %s", r.code, r.body)
	}
	check("REST")
}

// What is sent again must be what was sent: a frame's buffers go back to a pool that all calls share.
func TestARetryCarriesTheSameRequest(t *testing.T) {
	w := start(t).ready()
	w.money.failing = 2
	payments := paymentsv1.NewPaymentServiceClient(w.conn())
	var wg sync.WaitGroup
	for i := range 20 { // more failures than that, and the brake on retries stops them
		wg.Go(func() {
			req := chargeOf(fmt.Sprintf("key-%d", i), int64(100+i))
			req.Metadata = make(map[string]string)
			for j := range 32 {
				req.Metadata[fmt.Sprint(j)] = strings.Repeat(string(rune('a'+i%26)), 512)
			}
			resp, err := payments.Charge(w.as(t.Context()), req)
			if err != nil {
				t.Error(err)
				return
			}
			if !maps.Equal(resp.GetPayment().GetMetadata(), req.GetMetadata()) || resp.GetPayment().GetAmountCents() != req.GetAmountCents() {
				t.Errorf("charge %d came back as %.200s", i, resp.String())
			}
		})
	}
	wg.Wait()
	w.money.mu.Lock()
	defer w.money.mu.Unlock()
	for key, n := range w.money.attempts {
		if n != 3 {
			t.Errorf("%s was tried %d times", key, n)
		}
	}
}

func TestTheDeadlineGoesWithTheCall(t *testing.T) {
	w := start(t).ready()
	ctx, cancel := context.WithTimeout(w.as(t.Context()), 900*time.Millisecond)
	defer cancel()
	if _, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999)); err != nil {
		t.Fatal(err)
	}
	if d := w.money.deadline; d <= 0 || d > 900*time.Millisecond {
		t.Errorf("gRPC: the service has %s", d)
	}
	w.do("POST", "/v1/charges", charge("k2", "1999"), jsonType, w.bearer(), "x-server-timeout: 0.8")
	if d := w.money.deadline; d <= 0 || d > 800*time.Millisecond {
		t.Errorf("REST: the service has %s", d)
	}
	w.do("POST", "/v1/charges", charge("k3", "1999"), jsonType, w.bearer())
	if d := w.money.deadline; d <= 3*time.Second || d > 5*time.Second {
		t.Errorf("without one, the service has %s, not the policy's five seconds", d)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	w := start(t).ready()
	req := chargeOf("k", 1999)
	req.Metadata = map[string]string{"a": strings.Repeat("x", 5<<20)}
	_, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(w.as(t.Context()), req)
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("5 MiB: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+strings.Repeat("x", 10<<10))
	_, err = paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999))
	kittest.WantFault(t, err, codes.InvalidArgument, "MALFORMED_REQUEST")
	ctx = metadata.AppendToOutgoingContext(t.Context(), "x-filler", strings.Repeat("x", 20<<10))
	if _, err = paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999)); err == nil {
		t.Error("20 KiB of headers pass")
	}
}

func TestAServiceThatIsAwayIsUnavailable(t *testing.T) {
	nobody := listen(t)
	address := nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	w := start(t, func(c *Config) { c.Payments = "dns:///" + address })
	_, port, _ := net.SplitHostPort(address)

	_, err := paymentsv1.NewPaymentServiceClient(w.conn()).GetPayment(w.as(t.Context()), &paymentsv1.GetPaymentRequest{PaymentId: ada})
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Metadata()["upstream"] != "payments" || f.Domain() != "policy.v1" {
		t.Errorf("metadata %v, domain %s", f.Metadata(), f.Domain())
	}
	if text := status.Convert(err).String(); strings.Contains(text, port) {
		t.Errorf("the text tells the address: %s", text)
	}
	stream, err := paymentsv1.NewPaymentServiceClient(w.conn()).WatchTransactions(w.as(t.Context()), &paymentsv1.WatchTransactionsRequest{CustomerId: ada})
	if err == nil {
		_, err = stream.Recv()
	}
	kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")

	r := w.do("GET", "/v1/payments/"+ada, "", w.bearer())
	if s := r.wantStatus(t, 503, 14, "policy.v1 UPSTREAM_UNAVAILABLE"); strings.Contains(string(r.body), port) {
		t.Errorf("the text tells the address: %+v", s)
	}
	if r := w.do("GET", "/readyz", ""); r.code != 503 || !strings.Contains(string(r.body), `{"name":"payments","status":"NOT_SERVING"}`) {
		t.Errorf("readyz: %d %s", r.code, r.body)
	}
	if r := w.do("GET", "/healthz", ""); r.code != 200 {
		t.Errorf("healthz: %d %s", r.code, r.body)
	}
	if !strings.Contains(w.log.String(), port) {
		t.Error("the log does not tell what is wrong")
	}
	// The others work.
	if _, err := usersv1.NewUserServiceClient(w.conn()).GetUser(w.as(t.Context()), &usersv1.GetUserRequest{UserId: ada}); err != nil {
		t.Error(err)
	}
}

func TestHealthFollowsTheServices(t *testing.T) {
	w := start(t).ready()
	health := healthpb.NewHealthClient(w.conn())
	want := func(service string, state healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		for {
			resp, err := watch.Recv()
			if err != nil {
				t.Fatalf("%q is not %v: %v", service, state, err)
			}
			if resp.GetStatus() == state {
				return
			}
		}
	}
	want("", healthpb.HealthCheckResponse_SERVING)
	want("payments.v1.PaymentService", healthpb.HealthCheckResponse_SERVING)
	if r := w.do("GET", "/readyz", ""); r.code != 200 || r.object(t)["status"] != "ready" {
		t.Errorf("readyz: %d %s", r.code, r.body)
	}
	if err := w.payments.Stop(); err != nil {
		t.Fatal(err)
	}
	want("payments.v1.PaymentService", healthpb.HealthCheckResponse_NOT_SERVING)
	want("", healthpb.HealthCheckResponse_NOT_SERVING)
	want("users.v1.UserService", healthpb.HealthCheckResponse_SERVING)
}

func TestReflectionShowsWhatCallersCanUse(t *testing.T) {
	w := start(t)
	v1, err := reflectionpb.NewServerReflectionClient(w.conn()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := v1.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := v1.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var services []string
	for _, s := range ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	slices.Sort(services)
	want := []string{
		"auth.v1.AdminService", "auth.v1.AuthService", "auth.v1.KeyService", "auth.v1.SessionService",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"payments.v1.LedgerService", "payments.v1.PaymentService", "users.v1.UserService",
	}
	if !slices.Equal(services, want) {
		t.Errorf("services: %v", services)
	}
	resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "auth.v1.AuthService"}})
	found := false
	for _, b := range resp.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var f descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		for _, s := range f.GetService() {
			if s.GetName() != "AuthService" {
				continue
			}
			found = true
			var methods []string
			for _, m := range s.GetMethod() {
				methods = append(methods, m.GetName())
			}
			if !slices.Equal(methods, []string{"WatchUserEvents"}) {
				t.Errorf("AuthService shows %v", methods)
			}
		}
	}
	if !found {
		t.Error("AuthService is not described")
	}
	for symbol, there := range map[string]bool{
		"auth.v1.AuthService.GetUser": false, "auth.v1.AuthService.WatchUserEvents": true,
		"payments.v1.PaymentService.Charge": true, "google.rpc.Status": true, "google.rpc.ErrorInfo": true, "grpc.health.v1.Health": true,
	} {
		resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}})
		if got := resp.GetErrorResponse() == nil; got != there {
			t.Errorf("%s: shown %t, want %t", symbol, got, there)
		}
	}
	// v1alpha has the same messages under another name.
	alpha, err := w.conn().NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	for symbol, there := range map[string]bool{"auth.v1.AuthService.GetUser": false, "auth.v1.AuthService.WatchUserEvents": true} {
		var resp reflectionpb.ServerReflectionResponse
		if err := alpha.SendMsg(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}}); err != nil {
			t.Fatal(err)
		}
		if err := alpha.RecvMsg(&resp); err != nil || (resp.GetErrorResponse() == nil) != there {
			t.Errorf("v1alpha, %s: %v, %v; want it shown: %t", symbol, &resp, err, there)
		}
	}
}

func TestACallHasOneLineInTheLog(t *testing.T) {
	w := start(t).ready()
	ctx := metadata.AppendToOutgoingContext(w.as(t.Context()), "x-request-id", "one-line")
	if _, err := paymentsv1.NewPaymentServiceClient(w.conn()).Charge(ctx, chargeOf("k", 1999)); err != nil {
		t.Fatal(err)
	}
	w.do("POST", "/v1/charges", charge("k2", "49"), jsonType, w.bearer(), "x-request-id: one-line-too")
	w.do("GET", "/nowhere?secret=hunter2", "", "x-request-id: nowhere")
	for id, parts := range map[string][]string{
		"one-line":     {`"method":"/payments.v1.PaymentService/Charge"`, `"code":"OK"`, `"took":`, `"address":"127.0.0.1"`, `"protocol":"grpc"`},
		"one-line-too": {`"method":"/payments.v1.PaymentService/Charge"`, `"code":"InvalidArgument"`, `"reason":"INVALID_REQUEST"`, `"protocol":"rest"`},
		"nowhere":      {`"path":"/nowhere"`, `"status":404`},
	} {
		var lines []string
		deadline := time.Now().Add(5 * time.Second)
		for len(lines) == 0 && time.Now().Before(deadline) { // the line comes after the answer
			for l := range strings.Lines(w.log.String()) {
				if strings.Contains(l, `"request_id":"`+id+`"`) {
					lines = append(lines, l)
				}
			}
		}
		if len(lines) != 1 {
			t.Fatalf("%s has %d lines: %s", id, len(lines), lines)
		}
		for _, p := range parts {
			if !strings.Contains(lines[0], p) {
				t.Errorf("%s lacks %s: %s", id, p, lines[0])
			}
		}
	}
	if log := w.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, w.token()[:20]) {
		t.Error("the log has what is secret")
	}
}
