package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// ids matches the ids in a path, which are others each time.
var ids = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// mostBody is the longest answer that is read.
const mostBody = 1 << 20

// overREST does over REST what a browser or a script does. Requests are written, and answers read, by the messages of
// this version, in the JSON of protobuf; a reader of JSON leaves out what it does not know.
func (p *probe) overREST(ctx context.Context, me person) {
	session := new(authv1.SignInResponse)
	p.rest(ctx, "auth.v1.SessionService/SignIn", "POST /v1/sessions", "she signs in", http.StatusOK, "", &authv1.SignInRequest{Email: me.email, Password: me.password}, session)
	token := session.GetTokens().GetAccessToken()
	p.rest(ctx, "auth.v1.SessionService/SignIn", "POST /v1/sessions", "a wrong password", http.StatusUnauthorized, "", &authv1.SignInRequest{Email: me.email, Password: "wrong"}, session)

	charged := new(paymentsv1.ChargeResponse)
	order := &paymentsv1.ChargeRequest{
		OrderId: "order-rest", AmountCents: 2500, Currency: "EUR", IdempotencyKey: p.uuid("order-rest"), CustomerId: me.id,
		Metadata: map[string]string{"item": "a loom"},
	}
	p.rest(ctx, "payments.v1.PaymentService/Charge", "POST /v1/charges", "a charge", http.StatusOK, token, order, charged)
	payment := "/" + charged.GetPayment().GetPaymentId()
	p.rest(ctx, "payments.v1.PaymentService/GetPayment", "GET /v1/payments"+payment, "the payment", http.StatusOK, token, nil, new(paymentsv1.GetPaymentResponse))
	p.rest(ctx, "payments.v1.PaymentService/RefundPayment", "POST /v1/payments"+payment+":refund", "give a part back", http.StatusOK, token,
		&paymentsv1.RefundPaymentRequest{AmountCents: 500, IdempotencyKey: p.uuid("refund rest")}, new(paymentsv1.RefundPaymentResponse))
	p.rest(ctx, "payments.v1.PaymentService/ListPayments", "GET /v1/payments?pageSize=2&customerId="+me.id, "a page of payments", http.StatusOK, token, nil, new(paymentsv1.ListPaymentsResponse))
	order.AmountCents = 1
	p.rest(ctx, "payments.v1.PaymentService/Charge", "POST /v1/charges", "too small an amount", http.StatusBadRequest, token, order, charged)

	p.rest(ctx, "users.v1.UserService/GetUser", "GET /v1/users/"+me.id, "her profile", http.StatusOK, token, nil, new(usersv1.GetUserResponse))
	p.rest(ctx, "users.v1.UserService/UpdateUser", "PATCH /v1/users/"+me.id, "another name", http.StatusOK, token, &usersv1.UpdateUserRequest{
		User: &usersv1.User{DisplayName: "Ada L."}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}}, RequestId: p.uuid("patch"),
	}, new(usersv1.UpdateUserResponse))
	p.rest(ctx, "users.v1.UserService/ListUsers", "GET /v1/users?filter="+url.QueryEscape(`labels.part = "import"`)+"&orderBy=email", "those imported", http.StatusOK, token, nil, new(usersv1.ListUsersResponse))
	p.rest(ctx, "users.v1.UserService/GetUser", "GET /v1/users/"+me.id, "no token", http.StatusUnauthorized, "", nil, new(usersv1.GetUserResponse))
	p.rest(ctx, "payments.v1.LedgerService/GetTrialBalance", "GET /v1/ledger/trialBalance", "the trial balance", http.StatusOK, token, nil, new(paymentsv1.GetTrialBalanceResponse))
}

// rest makes one call of a method, as "VERB /path", and writes it down.
func (p *probe) rest(ctx context.Context, method, route, step string, want int, token string, body, answer proto.Message) {
	c := &transcript.Call{Step: step + ", " + ids.ReplaceAllString(route, "{id}"), Kind: rest, Method: method}
	code, text, err := p.send(ctx, route, token, body)
	switch {
	case err != nil:
		c.Problem = err.Error()
	case code != want:
		c.Problem = fmt.Sprintf("answers %d, not %d: %s", code, want, text)
	case code == http.StatusOK:
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, answer); err != nil {
			c.Problem = err.Error()
		}
		c.Saw = transcript.Of("answer", answer, transcript.Shape)
	default:
		c.Saw = []transcript.Entry{{Path: "code", Value: fmt.Sprint(code)}, {Path: "reason", Value: reasonOf(text)}}
	}
	p.line(transcript.Line{Call: c})
}

func (p *probe) send(ctx context.Context, route, token string, body proto.Message) (int, []byte, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = protojson.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	verb, path, _ := strings.Cut(route, " ")
	req, err := http.NewRequestWithContext(ctx, verb, "http://"+p.place.HTTP+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, mostBody))
	return resp.StatusCode, text, err
}

// reasonOf returns the machine-readable part of an error.
func reasonOf(text []byte) string {
	var s spb.Status
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &s); err != nil {
		return "no google.rpc.Status"
	}
	for _, d := range s.GetDetails() {
		var info errdetails.ErrorInfo
		if d.UnmarshalTo(&info) == nil {
			return info.GetDomain() + " " + info.GetReason()
		}
	}
	return ""
}
