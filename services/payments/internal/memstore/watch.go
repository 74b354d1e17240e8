package memstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// errToken is what the event log answers to a token that is not its own.
var errToken = fault.New(fault.InvalidArgument, "RESUME_TOKEN_INVALID", "the resume token is not valid").
	WithDomain(payments.PolicyDomain).
	WithViolation("resume_token", "resume_token.valid", "must be a token that this method returned")

// Watch implements payments.Store.
func (s *Store) Watch(ctx context.Context, customer payments.CustomerID, token string) (payments.Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := &feed{store: s, customer: customer, at: len(s.log)}
	if token == "" {
		return f, nil
	}
	scope, at, ok := strings.Cut(token, "/")
	n, err := strconv.Atoi(at)
	if !ok || err != nil || scope != string(customer) || n < 0 || n > len(s.log) {
		return nil, errToken
	}
	f.at = n
	return f, nil
}

type feed struct {
	store    *Store
	customer payments.CustomerID
	at       int
}

// Next implements payments.Feed.
func (f *feed) Next(ctx context.Context) (payments.Transaction, string, error) {
	for {
		if err := ctx.Err(); err != nil {
			return payments.Transaction{}, "", err
		}
		f.store.mu.Lock()
		log, more := f.store.log, f.store.more
		f.store.mu.Unlock()
		for f.at < len(log) {
			t := log[f.at]
			f.at++
			if f.customer == "" || f.customer == t.Payment.Customer {
				return t, f.Position(), nil
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

// Position implements payments.Feed.
func (f *feed) Position() string { return string(f.customer) + "/" + strconv.Itoa(f.at) }

// OnCut implements payments.Feed: it buffers nothing, and so cuts nobody.
func (f *feed) OnCut(func(error)) {}

// Close implements payments.Feed.
func (f *feed) Close() {}
