package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// The event logs, by the methods that follow them.
const (
	userEvents   = "auth.v1.AuthService/WatchUserEvents"
	profiles     = "users.v1.UserService/WatchUsers"
	transactions = "payments.v1.PaymentService/WatchTransactions"
)

// told is what one response of a log says: the event, and what it is about.
type told struct {
	token string
	event proto.Message // nil in a response that only moves the token
	about string
}

// open begins to follow a log after a token.
func (p *probe) open(ctx context.Context, log, token string) (func() (told, error), error) {
	switch log {
	case userEvents:
		stream, err := p.auth.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{ResumeToken: token})
		return reader(stream, func(m *authv1.WatchUserEventsResponse) told {
			t := told{token: m.GetResumeToken()}
			if e := m.GetEvent(); e != nil {
				t.event, t.about = e, fmt.Sprintf("%d %s", e.GetEventType(), e.GetUserId())
			}
			return t
		}), err
	case profiles:
		stream, err := p.users.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: token})
		return reader(stream, func(m *usersv1.WatchUsersResponse) told {
			t := told{token: m.GetResumeToken()}
			if e := m.GetEvent(); e != nil {
				t.event, t.about = e, fmt.Sprintf("%d %s", e.GetEventType(), e.GetUserId())
			}
			return t
		}), err
	case transactions:
		stream, err := p.payments.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{ResumeToken: token})
		return reader(stream, func(m *paymentsv1.WatchTransactionsResponse) told {
			t := told{token: m.GetResumeToken()}
			if e := m.GetTransaction(); e != nil {
				t.event, t.about = e, fmt.Sprintf("%d %s", e.GetType(), e.GetPayment().GetOrderId())
			}
			return t
		}), err
	}
	return nil, fmt.Errorf("there is no log %q", log)
}

func reader[Resp any](stream grpc.ServerStreamingClient[Resp], what func(*Resp) told) func() (told, error) {
	return func() (told, error) {
		m, err := stream.Recv()
		if err != nil {
			return told{}, err
		}
		return what(m), nil
	}
}

// mark writes the tokens of this moment.
func (p *probe) mark(ctx context.Context) error {
	tokens := map[string]string{}
	for _, log := range []string{userEvents, profiles, transactions} {
		next, err := p.open(ctx, log, "")
		if err != nil {
			return fmt.Errorf("%s: %w", log, err)
		}
		first, err := next()
		if err != nil {
			return fmt.Errorf("%s: %w", log, err)
		}
		tokens[log] = first.token
	}
	p.line(transcript.Line{Tokens: tokens})
	return p.err
}

// write makes changes, and writes what the last event of each log is about.
func (p *probe) write(ctx context.Context) error {
	password := "correct horse battery " + p.seed
	up, err := p.sessions.SignUp(ctx, &authv1.SignUpRequest{Email: p.email("writer"), Password: password, DisplayName: "Writer", RequestId: p.uuid("sign up writer")})
	if err != nil {
		return fmt.Errorf("sign up: %w", err)
	}
	customer := up.GetAccount().GetUserId()
	for _, name := range []string{"hal", "iris", "last"} {
		if _, err := p.users.CreateUser(ctx, &usersv1.CreateUserRequest{
			UserId: p.uuid(name), Email: p.email(name), DisplayName: name, Labels: map[string]string{"name": name}, RequestId: p.uuid("create " + name),
			Address: &usersv1.Address{CountryCode: "NL", Lines: []string{"Keizersgracht 1"}},
		}); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		if _, err := p.users.DisableUser(ctx, &usersv1.DisableUserRequest{UserId: p.uuid(name), RequestId: p.uuid("disable " + name)}); err != nil {
			return fmt.Errorf("disable %s: %w", name, err)
		}
	}
	for _, order := range []string{"first", "second", "last"} {
		if _, err := p.payments.Charge(ctx, &paymentsv1.ChargeRequest{
			OrderId: order + "-" + p.seed, AmountCents: 1999, Currency: "EUR", IdempotencyKey: p.uuid(order), CustomerId: customer,
			Metadata: map[string]string{"item": order},
		}); err != nil {
			return fmt.Errorf("charge for %s: %w", order, err)
		}
	}
	if _, err := p.sessions.SignIn(ctx, &authv1.SignInRequest{Email: p.email("writer"), Password: "wrong"}); status.Code(err) != codes.Unauthenticated {
		return fmt.Errorf("sign in with a wrong password: %v", err)
	}
	if _, err := p.sessions.SignIn(ctx, &authv1.SignInRequest{Email: p.email("writer"), Password: password}); err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	p.line(transcript.Line{Until: map[string]string{
		userEvents:   fmt.Sprintf("%d %s", authv1.UserEventType_USER_EVENT_TYPE_LOGIN, customer),
		profiles:     fmt.Sprintf("%d %s", usersv1.UserEventType_USER_EVENT_TYPE_DISABLED, p.uuid("last")),
		transactions: fmt.Sprintf("%d last-%s", paymentsv1.TransactionType_TRANSACTION_TYPE_CHARGED, p.seed),
	}})
	return p.err
}

// follow writes the events of each log after a token, up to the last one.
func (p *probe) follow(ctx context.Context, tokens, until map[string]string) error {
	for log, last := range until {
		next, err := p.open(ctx, log, tokens[log])
		if err != nil {
			return fmt.Errorf("%s: %w", log, err)
		}
		for about := ""; about != last; {
			t, err := next()
			if err != nil {
				return fmt.Errorf("%s after %q: %w", log, about, err)
			}
			if t.event == nil {
				continue
			}
			about = t.about
			p.line(transcript.Line{Event: &transcript.Event{Stream: log, Token: t.token, Saw: transcript.Of("event", t.event, transcript.Exact)}})
		}
	}
	return p.err
}
