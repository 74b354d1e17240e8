package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// watchScope is what resume tokens are bound to, followed by the customer that they are for.
const watchScope = "payments.v1.PaymentService/WatchTransactions/"

// event is a transaction as the log keeps it. Fields are added, never renamed: what was written is read for ever.
type event struct {
	ID        string            `json:"id"`
	Order     string            `json:"order"`
	Customer  string            `json:"customer"`
	Amount    int64             `json:"amount"`
	Currency  string            `json:"currency"`
	State     string            `json:"state"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	CreatedAt int64             `json:"created_at"` // microseconds since 1970, UTC
}

// announce adds the event of a transaction to the log.
func (s *Store) announce(ctx context.Context, tx *sqldb.Tx, t payments.Transaction) error {
	p := t.Payment
	payload, err := json.Marshal(event{
		ID:        string(p.ID),
		Order:     string(p.Order),
		Customer:  string(p.Customer),
		Amount:    p.Amount,
		Currency:  string(p.Currency),
		State:     string(p.State),
		Metadata:  p.Metadata,
		CreatedAt: p.CreatedAt.UnixMicro(),
	})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	return s.log.Append(ctx, tx, eventlog.Event{
		At:      t.At,
		Subject: subject(p.Customer) + string(p.ID),
		Type:    string(t.Type),
		Payload: payload,
	})
}

// subject returns how the subjects of the events of a customer begin: what comes after it is the payment. A watch of
// one customer matches it without decoding the event.
func subject(customer payments.CustomerID) string { return string(customer) + "/" }

// Watch begins to follow the transactions of one customer, or of all where customer is empty: after the resume token, or
// from now on where that is empty. A token is good for the same customer only. The subscription must be closed.
//
// It returns eventlog.ErrBadToken, eventlog.ErrTooOld or eventlog.ErrStopped.
func (s *Store) Watch(ctx context.Context, customer payments.CustomerID, token string) (payments.Feed, error) {
	watch := eventlog.Watch{Scope: watchScope + string(customer), Token: token}
	if customer != "" {
		prefix := subject(customer)
		watch.Match = func(e eventlog.Event) bool { return strings.HasPrefix(e.Subject, prefix) }
	}
	sub, err := s.log.Subscribe(ctx, watch)
	if err != nil {
		return nil, fmt.Errorf("watch transactions: %w", err)
	}
	return feed{sub}, nil
}

// feed is a subscription whose events are transactions.
type feed struct{ *eventlog.Subscription }

// Next returns the next transaction and the token of the place right after it.
func (f feed) Next(ctx context.Context) (payments.Transaction, string, error) {
	e, token, err := f.Subscription.Next(ctx)
	if err != nil {
		return payments.Transaction{}, "", err
	}
	t, err := transaction(e)
	if err != nil {
		return payments.Transaction{}, "", err
	}
	return t, token, nil
}

// transaction returns what an event says.
func transaction(e eventlog.Event) (payments.Transaction, error) {
	var p event
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return payments.Transaction{}, fmt.Errorf("event %d: %w", e.Seq, err)
	}
	return payments.Transaction{
		Type: payments.TransactionType(e.Type),
		Payment: payments.Payment{
			ID:        payments.ID(p.ID),
			Order:     payments.OrderID(p.Order),
			Customer:  payments.CustomerID(p.Customer),
			Amount:    p.Amount,
			Currency:  payments.Currency(p.Currency),
			State:     payments.State(p.State),
			Metadata:  p.Metadata,
			CreatedAt: time.UnixMicro(p.CreatedAt).UTC(),
		},
		At: e.At,
	}, nil
}
