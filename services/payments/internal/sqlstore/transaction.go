package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// watchScope is what resume tokens are bound to, followed by the customer that they are for.
const watchScope = "payments.v1.PaymentService/WatchTransactions/"

// event is a transaction as the log keeps it. Fields are added, never renamed: what was written is read for ever.
type event struct {
	Customer   string            `json:"customer"` // the first: see isOf
	Number     int64             `json:"number"`
	ID         string            `json:"id"`
	Order      string            `json:"order"`
	Amount     int64             `json:"amount"`
	Currency   string            `json:"currency"`
	State      string            `json:"state"`
	Captured   int64             `json:"captured,omitempty"`
	Refunded   int64             `json:"refunded,omitempty"`
	Capturable int64             `json:"capturable,omitempty"`
	Hold       int64             `json:"hold,omitempty"`
	ExpiresAt  int64             `json:"expires_at,omitempty"` // microseconds since 1970, UTC, as all times
	Decline    string            `json:"decline,omitempty"`
	Busy       bool              `json:"busy,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	CreatedAt  int64             `json:"created_at"`
	Of         int64             `json:"of"` // how much the transaction was about
}

// encodeEvents returns the events of transactions.
func encodeEvents(told []payments.Transaction) ([]eventlog.Event, error) {
	events := make([]eventlog.Event, len(told))
	for i := range told {
		t := &told[i]
		p := &t.Payment
		e := event{
			Customer: string(p.Customer), Number: p.Number, ID: string(p.ID), Order: string(p.Order), Amount: p.Amount,
			Currency: string(p.Currency), State: string(p.State), Captured: p.Captured, Refunded: p.Refunded,
			Capturable: p.Capturable, Hold: p.Hold, Decline: string(p.Decline), Busy: p.Busy, Metadata: p.Metadata,
			CreatedAt: p.CreatedAt.UnixMicro(), Of: t.Amount,
		}
		if !p.ExpiresAt.IsZero() {
			e.ExpiresAt = p.ExpiresAt.UnixMicro()
		}
		payload, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
		events[i] = eventlog.Event{At: t.At, Type: string(t.Type), Payload: payload}
		if len(p.Metadata) > 0 {
			events[i].Subject = string(p.Customer)
		}
	}
	return events, nil
}

// isOf returns what says whether an event is about a customer. The subject is only there to find what must be erased,
// which many events have nothing of, because its index is dear. So who it is stands first in the payload.
func isOf(customer payments.CustomerID) func(eventlog.Event) bool {
	first := `{"customer":` + jsonOf(customer) + `,`
	return func(e eventlog.Event) bool {
		return len(e.Payload) > len(first) && string(e.Payload[:len(first)]) == first || e.Subject == string(customer)
	}
}

// Watch begins to follow the transactions of one customer, or of all where customer is empty: after the resume token,
// or from now on where that is empty. A token is good for the same customer only. The subscription must be closed.
//
// It returns eventlog.ErrBadToken, eventlog.ErrTooOld or eventlog.ErrStopped.
func (s *Store) Watch(ctx context.Context, customer payments.CustomerID, token string) (payments.Feed, error) {
	watch := eventlog.Watch{Scope: watchScope + string(customer), Token: token}
	if customer != "" {
		watch.Match = isOf(customer)
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
	t := payments.Transaction{
		Type:   payments.TransactionType(e.Type),
		Amount: p.Of,
		Payment: payments.Payment{
			Number:     p.Number,
			ID:         payments.ID(p.ID),
			Order:      payments.OrderID(p.Order),
			Customer:   payments.CustomerID(p.Customer),
			Amount:     p.Amount,
			Currency:   payments.Currency(p.Currency),
			State:      payments.State(p.State),
			Captured:   p.Captured,
			Refunded:   p.Refunded,
			Capturable: p.Capturable,
			Hold:       p.Hold,
			Decline:    payments.Decline(p.Decline),
			Busy:       p.Busy,
			Metadata:   p.Metadata,
			CreatedAt:  time.UnixMicro(p.CreatedAt).UTC(),
			UpdatedAt:  e.At,
		},
		At: e.At,
	}
	if p.ExpiresAt != 0 {
		t.Payment.ExpiresAt = time.UnixMicro(p.ExpiresAt).UTC()
	}
	return t, nil
}
