// Package storetest is what every store of payments must do, as one suite.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Store is a store of payments with what the suite needs to look behind it.
type Store interface {
	payments.Store

	// Verify proves the books: entries sum to zero, balances are sums, every payment has its entries, key and event.
	Verify(ctx context.Context) error
	// PageKey returns the key of page tokens.
	PageKey() []byte
	// Close ends what runs and closes the store.
	Close() error
}

// Database is the data behind a store: it stays while stores on it are opened and closed.
type Database interface {
	// Open opens the store; the one opened before has been closed.
	Open(t *testing.T) Store
}

// Run runs the suite. make returns an empty database.
func Run(t *testing.T, make func(t *testing.T) Database) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, db Database)
	}{
		{"a captured payment can be got, listed and looked up by its key as it was", capturedIsKept},
		{"a payment that is not there is not found", missingIsNotFound},
		{"an equal claim replays the first payment and writes nothing", equalClaimReplays},
		{"a claim with other content is refused", otherContentIsRefused},
		{"equal keys of other callers and methods have nothing to do with each other", keysAreScoped},
		{"a thousand equal captures at once make one payment and a thousand equal answers", thousandEqual},
		{"captures of different payments at once all balance", concurrentCaptures},
		{"of captures with one key and different content one wins and the others are refused", concurrentConflict},
		{"a capture that overflows the merchant's account leaves nothing behind", merchantOverflow},
		{"a capture that overflows the customer's account leaves nothing behind", customerOverflow},
		{"currencies have accounts of their own", currenciesAreApart},
		{"a posting that does not balance is refused", unbalancedIsRefused},
		{"a capture whose context has ended leaves nothing behind", canceledCapture},
		{"a list is newest first, in pages without gap or duplicate", pages},
		{"a list of one customer has no other payments", listOfOne},
		{"a list after a payment that is not there is refused", listAfterMissing},
		{"a list does not shift when payments are added between its pages", listWhileAdding},
		{"texts are kept as they are", textsAreKept},
		{"what was committed is there after the store was opened anew", survivesReopening},
		{"a watch gets the transactions of its customer in order", watchOfOne},
		{"a watch resumed after the store was opened anew has no gap and no duplicate", watchResumes},
		{"a watch of all gets every transaction once while captures run at once", watchUnderLoad},
		{"a resume token of one watch is refused by another", foreignToken},
		{"a refused capture makes no event", refusedHasNoEvent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.check(t, make(t))
		})
	}
}

// Customers that the checks charge.
const (
	ann payments.CustomerID = "0197a000-0000-7000-8000-00000000000a"
	bob payments.CustomerID = "0197a000-0000-7000-8000-00000000000b"
)

// instant is the time of the payments of the suite.
func instant() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC) }

// payment returns the n-th payment of a customer.
func payment(customer payments.CustomerID, n int, amount int64) payments.Payment {
	return payments.Payment{
		ID:        payments.ID(fmt.Sprintf("0197b000-%04x-7000-8000-%s", n, customer[24:])),
		Order:     payments.OrderID(fmt.Sprintf("order-%d", n)),
		Customer:  customer,
		Amount:    amount,
		Currency:  "EUR",
		State:     payments.StateCaptured,
		CreatedAt: instant().Add(time.Duration(n) * time.Second),
	}
}

// posting returns the posting of a payment.
func posting(p payments.Payment) payments.Posting {
	return payments.Posting{Payment: p, Entries: []payments.Entry{
		{Account: payments.CustomerAccount(p.Customer, p.Currency), Amount: -p.Amount},
		{Account: payments.MerchantAccount(p.Currency), Amount: p.Amount},
	}}
}

// claim returns the claim of a key by the test's caller; content stands for what is charged.
func claim(key, content string) payments.Claim {
	return payments.Claim{Caller: "user:ann", Method: "charge", Key: key, Digest: sha256.Sum256([]byte(content))}
}

// claimOf returns a claim of its own for a payment.
func claimOf(p payments.Payment) payments.Claim { return claim("key-"+string(p.ID), string(p.ID)) }

// open opens the store for the test.
func open(t *testing.T, db Database) Store {
	t.Helper()
	s := db.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// limit bounds what a check may wait for.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// add captures a payment with a key of its own.
func add(t *testing.T, s Store, p payments.Payment) {
	t.Helper()
	r, err := s.Capture(t.Context(), claimOf(p), posting(p))
	if err != nil {
		t.Fatalf("capture %s: %v", p.ID, err)
	}
	if r.Replayed {
		t.Fatalf("capture %s: replayed", p.ID)
	}
}

// verify proves the books.
func verify(t *testing.T, s Store) {
	t.Helper()
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// wantPayments compares lists by their ids.
func wantPayments(t *testing.T, got []payments.Payment, want ...payments.Payment) {
	t.Helper()
	if g, w := ids(got), ids(want); g != w {
		t.Errorf("got %s, want %s", g, w)
	}
}

func ids(list []payments.Payment) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintf(&b, " %s", p.ID)
	}
	return "[" + strings.TrimSpace(b.String()) + "]"
}
