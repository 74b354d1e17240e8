package app

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// h2c returns a client that speaks HTTP/2 without TLS.
func h2c(t *testing.T) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// dialects are the ways in which a client of the connect family can speak.
func dialects(t *testing.T) map[string]func() (*http.Client, []connect.ClientOption) {
	plain := func(opts ...connect.ClientOption) func() (*http.Client, []connect.ClientOption) {
		return func() (*http.Client, []connect.ClientOption) { return http.DefaultClient, opts }
	}
	return map[string]func() (*http.Client, []connect.ClientOption){
		"Connect with JSON":     plain(connect.WithProtoJSON()),
		"Connect with protobuf": plain(),
		"Connect, compressed":   plain(connect.WithSendGzip(), connect.WithProtoJSON()),
		"gRPC-Web":              plain(connect.WithGRPCWeb()),
		"gRPC-Web with JSON":    plain(connect.WithGRPCWeb(), connect.WithProtoJSON()),
		"gRPC over the HTTP side": func() (*http.Client, []connect.ClientOption) {
			return h2c(t), []connect.ClientOption{connect.WithGRPC()}
		},
		"Connect with JSON, over HTTP/2": func() (*http.Client, []connect.ClientOption) {
			return h2c(t), []connect.ClientOption{connect.WithProtoJSON()}
		},
	}
}

func client[Req, Res any](w *world, method string, c *http.Client, opts []connect.ClientOption) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](c, w.base+method, opts...)
}

func authorized[T any](w *world, m *T) *connect.Request[T] {
	r := connect.NewRequest(m)
	r.Header().Set("Authorization", "Bearer "+w.token())
	return r
}

func TestEveryDialectMakesUnaryCallsAndStreams(t *testing.T) {
	w := start(t).ready()
	for name, dial := range dialects(t) {
		t.Run(name, func(t *testing.T) {
			c, opts := dial()
			charges := client[paymentsv1.ChargeRequest, paymentsv1.ChargeResponse](w, paymentsv1.PaymentService_Charge_FullMethodName, c, opts)
			req := &paymentsv1.ChargeRequest{
				CustomerId: ada, OrderId: "o", AmountCents: 1999, Currency: "EUR", IdempotencyKey: strings.ReplaceAll(name, " ", "-"),
			}
			first, err := charges.CallUnary(t.Context(), authorized(w, req))
			if err != nil {
				t.Fatal(err)
			}
			second, err := charges.CallUnary(t.Context(), authorized(w, req))
			if err != nil {
				t.Fatal(err)
			}
			if first.Msg.GetPayment().GetPaymentId() == "" || first.Msg.GetPayment().GetPaymentId() != second.Msg.GetPayment().GetPaymentId() {
				t.Errorf("payments %v and %v", first.Msg, second.Msg)
			}
			if first.Header().Get("idempotency-replayed") != "" || second.Header().Get("idempotency-replayed") != "true" {
				t.Errorf("idempotency-replayed is %q, then %q", first.Header().Get("idempotency-replayed"), second.Header().Get("idempotency-replayed"))
			}
			if ids := first.Header().Values("x-request-id"); len(ids) != 1 || ids[0] == "" {
				t.Errorf("x-request-id is %q", ids)
			}

			req.AmountCents = 49
			_, err = charges.CallUnary(t.Context(), authorized(w, req))
			wantConnect(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST", "amount_cents")

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			watches := client[paymentsv1.WatchTransactionsRequest, paymentsv1.WatchTransactionsResponse](w, paymentsv1.PaymentService_WatchTransactions_FullMethodName, c, opts)
			stream, err := watches.CallServerStream(ctx, authorized(w, &paymentsv1.WatchTransactionsRequest{CustomerId: ada}))
			if err != nil {
				t.Fatal(err)
			}
			if !stream.Receive() || stream.Msg().GetTransaction() != nil || stream.Msg().GetResumeToken() == "" {
				t.Fatalf("first: %v, %v", stream.Msg(), stream.Err())
			}
			req.AmountCents, req.IdempotencyKey = 2500, req.GetIdempotencyKey()+"-2"
			if _, err := charges.CallUnary(t.Context(), authorized(w, req)); err != nil {
				t.Fatal(err)
			}
			if !stream.Receive() || stream.Msg().GetTransaction().GetPayment().GetAmountCents() != 2500 {
				t.Fatalf("second: %v, %v", stream.Msg(), stream.Err())
			}
			cancel()
			if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeCanceled {
				t.Errorf("after the caller left: %v", stream.Err())
			}

			refused, err := watches.CallServerStream(t.Context(), connect.NewRequest(&paymentsv1.WatchTransactionsRequest{CustomerId: ada}))
			if err == nil {
				for refused.Receive() {
					t.Errorf("without a token: %v", refused.Msg())
				}
				err = refused.Err()
			}
			wantConnect(t, err, connect.CodeUnauthenticated, "CREDENTIALS_MISSING", "")
		})
	}
}

// wantConnect fails the test unless err has that code and reason, and names the field where there is one to name.
func wantConnect(t *testing.T, err error, code connect.Code, reason, field string) {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) || ce.Code() != code {
		t.Fatalf("%v, want %v", err, code)
	}
	var gotReason, gotField, gotID string
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			gotReason = m.GetReason()
		case *errdetails.BadRequest:
			gotField = m.GetFieldViolations()[0].GetField()
		case *errdetails.RequestInfo:
			gotID = m.GetRequestId()
		}
	}
	if gotReason != reason || gotField != field || gotID == "" {
		t.Fatalf("reason %q, field %q, request %q; want %q, %q and some request", gotReason, gotField, gotID, reason, field)
	}
}

func TestStreamsOfTheCallerWorkOverHTTP2(t *testing.T) {
	w := start(t).ready()
	for name, opts := range map[string][]connect.ClientOption{
		"Connect with JSON": {connect.WithProtoJSON()}, "gRPC-Web": {connect.WithGRPCWeb()}, "gRPC": {connect.WithGRPC()},
	} {
		t.Run(name, func(t *testing.T) {
			c := h2c(t)
			up := client[usersv1.CreateUsersRequest, usersv1.CreateUsersResponse](w, usersv1.UserService_CreateUsers_FullMethodName, c, opts).CallClientStream(t.Context())
			up.RequestHeader().Set("Authorization", "Bearer "+w.token())
			for _, email := range []string{"a@example.com", "", "b@example.com"} {
				if err := up.Send(&usersv1.CreateUsersRequest{User: &usersv1.CreateUserRequest{Email: email, DisplayName: "x", RequestId: ada}}); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := up.CloseAndReceive()
			if err != nil {
				t.Fatal(err)
			}
			if resp.Msg.GetCreatedCount() != 2 || resp.Msg.GetFailedCount() != 1 || resp.Msg.GetFailures()[0].GetIndex() != 1 {
				t.Errorf("got %v", resp.Msg)
			}

			both := client[paymentsv1.ProcessChargesRequest, paymentsv1.ProcessChargesResponse](w, paymentsv1.PaymentService_ProcessCharges_FullMethodName, c, opts).CallBidiStream(t.Context())
			both.RequestHeader().Set("Authorization", "Bearer "+w.token())
			for _, key := range []string{"1", "2", "3"} { // each answer comes before the next request
				err := both.Send(&paymentsv1.ProcessChargesRequest{Charge: &paymentsv1.ChargeRequest{
					CustomerId: ada, OrderId: "o", AmountCents: 100, Currency: "EUR", IdempotencyKey: name[:4] + key,
				}})
				if err != nil {
					t.Fatal(err)
				}
				resp, err := both.Receive()
				if err != nil || resp.GetIdempotencyKey() != name[:4]+key || resp.GetPayment() == nil {
					t.Fatalf("%v, %v", resp, err)
				}
			}
			if err := both.CloseRequest(); err != nil {
				t.Fatal(err)
			}
			if _, err := both.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	var e struct{ Code int }
	r := w.do("POST", paymentsv1.PaymentService_ProcessCharges_FullMethodName, "", "content-type: application/connect+json")
	if err := json.Unmarshal(r.body, &e); err != nil || r.code != 505 || e.Code != 12 {
		t.Errorf("both ways over HTTP/1.1: %d %s", r.code, r.body)
	}
}

func TestPlainCurlCanCallAnyUnaryMethod(t *testing.T) {
	w := start(t).ready()
	w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer())
	list := paymentsv1.PaymentService_ListPayments_FullMethodName
	for name, headers := range map[string][]string{
		"without the protocol's header": {jsonType},
		"with it":                       {jsonType, "connect-protocol-version: 1"},
		"with a charset":                {"content-type: application/json;charset=utf-8"},
	} {
		r := w.do("POST", list, `{"customer_id":"`+ada+`"}`, append(headers, w.bearer())...)
		if payments, _ := r.object(t)["payments"].([]any); r.code != 200 || len(payments) != 1 {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	if r := w.do("GET", list+`?connect=v1&encoding=json&message={"customer_id":"`+ada+`"}`, "", w.bearer()); r.code != 200 {
		t.Errorf("GET of what has no side effects: %d %s", r.code, r.body)
	}
	for name, c := range map[string]struct {
		path, body string
		headers    []string
		http       int
		code       string
	}{
		"no token":                       {list, `{"customer_id":"` + ada + `"}`, []string{jsonType}, 401, "unauthenticated"},
		"an unknown field":               {list, `{"nope":1}`, []string{jsonType, w.bearer()}, 400, "invalid_argument"},
		"no JSON":                        {list, `nope`, []string{jsonType, w.bearer()}, 400, "invalid_argument"},
		"nothing at all":                 {list, ``, []string{jsonType, w.bearer()}, 400, "invalid_argument"},
		"another content type":           {list, `a=b`, []string{"content-type: application/x-www-form-urlencoded"}, 415, "invalid_argument"},
		"no content type":                {list, ``, nil, 415, "invalid_argument"},
		"a stream as if it were none":    {paymentsv1.PaymentService_WatchTransactions_FullMethodName, `{}`, []string{jsonType}, 415, "invalid_argument"},
		"another version of Connect":     {list, `{}`, []string{jsonType, "connect-protocol-version: 2"}, 400, "invalid_argument"},
		"a message that is too large":    {list, strings.Repeat(" ", 5<<20), []string{jsonType}, 413, "resource_exhausted"},
		"a method that is for services":  {"/auth.v1.AuthService/GetUser", `{"user_id":"` + ada + `"}`, []string{jsonType}, 403, "permission_denied"},
		"the same with a user's token":   {"/auth.v1.AuthService/GetUser", `{"user_id":"` + ada + `"}`, []string{jsonType, w.bearer()}, 403, "permission_denied"},
		"a method that exists elsewhere": {"/users.v1.UserService/Charge", `{}`, nil, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.do("POST", c.path, c.body, c.headers...)
			if code, _ := r.object(t)["code"].(string); r.code != c.http || code != c.code {
				t.Errorf("got %d %s, want %d %s", r.code, r.body, c.http, c.code)
			}
		})
	}
	if r := w.do("GET", paymentsv1.PaymentService_Charge_FullMethodName+"?connect=v1&encoding=json&message={}", "", w.bearer()); r.code != 405 {
		t.Errorf("GET of what has side effects: %d %s", r.code, r.body)
	}
	if r := w.do("GET", list, ""); r.code != 405 || r.header.Get("allow") != "POST" {
		t.Errorf("GET of a method: %d, allow %q", r.code, r.header.Get("allow"))
	}
}

// frame is one message of Connect's streams and of gRPC-Web.
func frame(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

func TestGarbageInTheMiddleOfAStreamEndsIt(t *testing.T) {
	w := start(t, func(c *Config) { c.MaxBody = 4096 }).ready()
	row := `{"user":{"email":"a@example.com","display_name":"x","request_id":"` + ada + `"}}`
	for name, c := range map[string]struct{ second, code string }{
		"what is no JSON":         {frame(0, "nope"), "invalid_argument"},
		"an unknown field":        {frame(0, `{"nope":1}`), "invalid_argument"},
		"a message cut short":     {frame(0, row)[:20], ""},
		"a message above 4 KiB":   {frame(0, strings.Repeat(" ", 4097)+row), "resource_exhausted"},
		"an announcement of 4 GB": {"\x00\xff\xff\xff\xff", "resource_exhausted"},
		"flags that do not exist": {frame(0x40, row), "invalid_argument"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.do("POST", usersv1.UserService_CreateUsers_FullMethodName, frame(0, row)+c.second, "content-type: application/connect+json", w.bearer())
			if r.code != 200 || len(r.body) < 5 || r.body[0] != 2 {
				t.Fatalf("no end of stream: %d %q", r.code, r.body)
			}
			var end struct {
				Error *struct{ Code string }
			}
			if err := json.Unmarshal(r.body[5:], &end); err != nil || end.Error == nil {
				t.Fatalf("the stream ends well: %s", r.body)
			}
			if c.code != "" && end.Error.Code != c.code {
				t.Errorf("got %s, want %s", r.body, c.code)
			}
		})
	}
}

func TestAStreamThatTheServiceEndsDoesNotWaitForTheCaller(t *testing.T) {
	w := start(t).ready()
	for name, c := range map[string]*http.Client{"HTTP/2": h2c(t), "HTTP/1.1": http.DefaultClient} {
		t.Run(name, func(t *testing.T) {
			body, keep := io.Pipe() // the caller sends nothing and does not finish
			defer keep.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", w.base+usersv1.UserService_CreateUsers_FullMethodName, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/connect+json")
			r := w.send(c, req)
			if r.code != 200 || !strings.Contains(string(r.body), "CREDENTIALS_MISSING") {
				t.Errorf("got %d %s", r.code, r.body)
			}
		})
	}
}

// The transcoder answers garbage where it reads it, while answers to what came before are being written. Run with -race.
func TestGarbageBesideAnswersHarmsNobody(t *testing.T) {
	w := start(t).ready()
	c := h2c(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body, to := io.Pipe()
			go func() {
				for j := range 5 {
					_, _ = io.WriteString(to, frame(0, `{"charge":`+charge(fmt.Sprintf("%d-%d", i, j), "100")+`}`))
				}
				_, _ = io.WriteString(to, frame(0, "nope"))
				// and it does not finish: the answer must come all the same
			}()
			defer to.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", w.base+paymentsv1.PaymentService_ProcessCharges_FullMethodName, body)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/connect+json")
			req.Header.Set("Authorization", "Bearer "+w.token())
			resp, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "MALFORMED_REQUEST") {
				t.Errorf("%v: %q", err, b)
			}
		})
	}
	wg.Wait()
	if r := w.do("GET", "/healthz", ""); r.code != 200 {
		t.Errorf("healthz: %d", r.code)
	}
}
