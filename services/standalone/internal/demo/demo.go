// Package demo plays one customer through the public API: it signs up, signs in, watches, pays, pays again by mistake,
// and changes the password. It promises that what it prints has happened: each line is the answer of a call or an event
// off a stream, and a step that goes wrong ends it with an error.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// Config is what a demo needs; every field is required.
type Config struct {
	// GRPC is the address of the gateway's gRPC listener, on this machine.
	GRPC string
	// HTTP is the address of the gateway's HTTP listener, on this machine.
	HTTP string
	// NewID makes UUIDs: request ids, idempotency keys, the name of the customer.
	NewID func() string
	// Out gets a line for each step.
	Out io.Writer
}

// timeout bounds the whole demo.
const timeout = 30 * time.Second

// Run plays the demo.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := grpc.NewClient(cfg.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return fmt.Errorf("connect to the gateway: %w", err)
	}
	defer conn.Close()
	d := &demo{
		cfg: cfg, sessions: authv1.NewSessionServiceClient(conn), auth: authv1.NewAuthServiceClient(conn),
		users: usersv1.NewUserServiceClient(conn), payments: paymentsv1.NewPaymentServiceClient(conn),
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"sign up", d.signUp}, {"sign in", d.signIn}, {"read the profile", d.profile}, {"watch", d.watch}, {"charge", d.charge},
		{"charge again with the same key", d.again}, {"charge another amount with the same key", d.mistake},
		{"read the payment over REST", d.rest}, {"change the password", d.changePassword},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	d.say("done", "a person signed up, was looked up by payments, and was charged once")
	return nil
}

type demo struct {
	cfg      Config
	sessions authv1.SessionServiceClient
	auth     authv1.AuthServiceClient
	users    usersv1.UserServiceClient
	payments paymentsv1.PaymentServiceClient

	email, password string
	userID, token   string
	order           *paymentsv1.ChargeRequest
	payment         *paymentsv1.Payment
	transactions    grpc.ServerStreamingClient[paymentsv1.WatchTransactionsResponse]
	events          grpc.ServerStreamingClient[authv1.WatchUserEventsResponse]
}

func (d *demo) say(step, format string, args ...any) {
	fmt.Fprintf(d.cfg.Out, "%-10s %s\n", step, fmt.Sprintf(format, args...))
}

// as adds the access token.
func (d *demo) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+d.token)
}

func (d *demo) signUp(ctx context.Context) error {
	d.email = "ada+" + d.cfg.NewID() + "@example.com"
	d.password = "a demo password " + d.cfg.NewID()
	resp, err := d.sessions.SignUp(ctx, &authv1.SignUpRequest{
		Email: d.email, Password: d.password, DisplayName: "Ada", RequestId: d.cfg.NewID(),
	})
	if err != nil {
		return err
	}
	d.userID = resp.GetAccount().GetUserId()
	d.say("sign up", "%s is %s (auth.v1 made the account, users.v1 the profile)", d.email, d.userID)
	return nil
}

func (d *demo) signIn(ctx context.Context) error {
	resp, err := d.sessions.SignIn(ctx, &authv1.SignInRequest{Email: d.email, Password: d.password})
	if err != nil {
		return err
	}
	d.token = resp.GetTokens().GetAccessToken()
	d.say("sign in", "an access token until %s", resp.GetTokens().GetAccessTokenExpiresAt().AsTime().Local().Format(time.TimeOnly))
	return nil
}

func (d *demo) profile(ctx context.Context) error {
	resp, err := d.users.GetUser(d.as(ctx), &usersv1.GetUserRequest{UserId: d.userID})
	if err != nil {
		return err
	}
	d.say("profile", "%s <%s>", resp.GetUser().GetDisplayName(), resp.GetUser().GetEmail())
	return nil
}

// watch opens both streams. The first message of each says that it is in place.
func (d *demo) watch(ctx context.Context) (err error) {
	if d.transactions, err = d.payments.WatchTransactions(d.as(ctx), &paymentsv1.WatchTransactionsRequest{CustomerId: d.userID}); err != nil {
		return err
	}
	if _, err = d.transactions.Recv(); err != nil {
		return err
	}
	if d.events, err = d.auth.WatchUserEvents(d.as(ctx), &authv1.WatchUserEventsRequest{UserId: d.userID}); err != nil {
		return err
	}
	if _, err = d.events.Recv(); err != nil {
		return err
	}
	d.say("watch", "payments.v1.WatchTransactions and auth.v1.WatchUserEvents are open")
	return nil
}

func (d *demo) charge(ctx context.Context) error {
	d.order = &paymentsv1.ChargeRequest{
		OrderId: "order-1", AmountCents: 1999, Currency: "EUR", IdempotencyKey: d.cfg.NewID(), CustomerId: d.userID,
		Metadata: map[string]string{"item": "a difference engine"},
	}
	resp, err := d.payments.Charge(d.as(ctx), d.order)
	if err != nil {
		return err
	}
	d.payment = resp.GetPayment()
	d.say("charge", "%s of %s for %s is payment %s", money(d.payment), d.email, d.payment.GetOrderId(), d.payment.GetPaymentId())
	for {
		resp, err := d.transactions.Recv()
		if err != nil {
			return err
		}
		if t := resp.GetTransaction(); t != nil {
			if t.GetPayment().GetPaymentId() != d.payment.GetPaymentId() {
				return fmt.Errorf("the stream tells of payment %s", t.GetPayment().GetPaymentId())
			}
			d.say("event", "%s %s, off the stream", strings.TrimPrefix(t.GetType().String(), "TRANSACTION_TYPE_"), money(t.GetPayment()))
			return nil
		}
	}
}

func (d *demo) again(ctx context.Context) error {
	var header metadata.MD
	resp, err := d.payments.Charge(d.as(ctx), d.order, grpc.Header(&header))
	if err != nil {
		return err
	}
	if resp.GetPayment().GetPaymentId() != d.payment.GetPaymentId() {
		return fmt.Errorf("charged twice: %s", resp.GetPayment().GetPaymentId())
	}
	if got := header.Get("idempotency-replayed"); len(got) != 1 || got[0] != "true" {
		return fmt.Errorf("the header idempotency-replayed is %v", got)
	}
	d.say("replay", "the same key answers with the same payment, and charges nothing")
	return nil
}

func (d *demo) mistake(ctx context.Context) error {
	wrong := &paymentsv1.ChargeRequest{
		OrderId: d.order.GetOrderId(), AmountCents: d.order.GetAmountCents() + 1, Currency: d.order.GetCurrency(),
		IdempotencyKey: d.order.GetIdempotencyKey(), CustomerId: d.order.GetCustomerId(), Metadata: d.order.GetMetadata(),
	}
	_, err := d.payments.Charge(d.as(ctx), wrong)
	if status.Code(err) != codes.FailedPrecondition {
		return fmt.Errorf("want FAILED_PRECONDITION, got %v", err)
	}
	d.say("refused", "another amount with the same key: %s", status.Convert(err).Message())
	return nil
}

func (d *demo) rest(ctx context.Context) error {
	path := "/v1/payments/" + d.payment.GetPaymentId()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.cfg.HTTP+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), d.payment.GetPaymentId()) {
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	d.say("REST", "GET %s: %s", path, resp.Status)
	return nil
}

func (d *demo) changePassword(ctx context.Context) error {
	_, err := d.sessions.ChangePassword(d.as(ctx), &authv1.ChangePasswordRequest{
		UserId: d.userID, CurrentPassword: d.password, NewPassword: "another " + d.password, RequestId: d.cfg.NewID(),
	})
	if err != nil {
		return err
	}
	for {
		resp, err := d.events.Recv()
		if err != nil {
			return errors.Join(errors.New("wait for the event"), err)
		}
		if e := resp.GetEvent(); e != nil && e.GetEventType() == authv1.UserEventType_USER_EVENT_TYPE_PASSWORD_CHANGED {
			d.say("event", "PASSWORD_CHANGED, off the stream")
			return nil
		}
	}
}

func money(p *paymentsv1.Payment) string {
	return fmt.Sprintf("%s %d.%02d", p.GetCurrency(), p.GetAmountCents()/100, p.GetAmountCents()%100)
}
