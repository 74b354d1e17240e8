// Package storetest is what every store of payments must do, as one suite.
package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Store is a store of payments with what the suite needs beside it.
type Store interface {
	payments.Store

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
		{"a charge can be got, listed and looked up by its key as it was", chargeIsKept},
		{"what is not there is not found", missingIsNotFound},
		{"an equal claim replays the first outcome, whatever has become of it", equalClaimReplays},
		{"a claim with other content is refused", otherContentIsRefused},
		{"equal keys of other callers and methods have nothing to do with each other", keysAreScoped},
		{"a thousand equal charges at once make one payment and a thousand equal answers", thousandEqual},
		{"charges of different payments at once all balance", concurrentCharges},
		{"opposite transfers by two hundred at once lose nothing", oppositeTransfers},
		{"of refunds at once no more is given back than was captured", concurrentRefunds},
		{"a refused command leaves nothing behind, and those beside it come through", refusedAlone},
		{"a command that panics fails alone", panicsAlone},
		{"what the database refuses fails alone", poisonedAlone},
		{"a command whose time is over before it begins is not done", timeIsOver},
		{"a payment goes through all its states", states},
		{"an open outcome is in flight until it is resolved", inFlight},
		{"intents are found in pages, the oldest first", intentPages},
		{"pending transfers are found once their time is over", expired},
		{"old keys are forgotten, and those in flight are not", forgotten},
		{"accounts keep what they are opened with, and are as they were at a moment", accounts},
		{"transfers are kept as they were written", transfers},
		{"a reversal is kept, and made once", reversal},
		{"lists are newest first, in pages without gap or duplicate", pages},
		{"a filter lists what it says", filters},
		{"the trial balance is that of all accounts", trialBalance},
		{"texts are kept as they are", textsAreKept},
		{"what was committed is there after the store was opened anew", survivesReopening},
		{"a watch gets the transactions of its customer in order", watchOfOne},
		{"a watch resumed after the store was opened anew has no gap and no duplicate", watchResumes},
		{"a watch of all gets every transaction once while charges run at once", watchUnderLoad},
		{"a resume token of one watch is refused by another", foreignToken},
		{"a refused command makes no event", refusedHasNoEvent},
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

// until is how long an authorization of the suite holds.
const until = time.Hour

// limit bounds what a check waits for.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// uuid returns the n-th id of the suite.
func uuid(n int64) string {
	return fmt.Sprintf("0197b000-%04x-7000-8000-%012x", n>>32&0xffff, n&0xffffffff)
}

var ids atomic.Int64

// paymentID returns an id that no other check has.
func paymentID() payments.ID { return payments.ID(uuid(ids.Add(1))) }

func claim(method, key, content string) payments.Claim {
	return payments.Claim{
		Key:    payments.Key{Caller: "service:orders", Method: method, Key: key},
		Digest: sha256.Sum256([]byte(content)),
	}
}

// charge returns the command that charges a customer, as the domain makes it.
func charge(key string, customer payments.CustomerID, amount int64) payments.Command {
	return chargeOf(key, payments.Payment{
		ID: paymentID(), Order: "X1", Customer: customer, Amount: amount, Currency: "EUR",
		Metadata: map[string]string{"cart": "7", "a": "b"},
	})
}

// chargeOf returns the command that makes a payment.
func chargeOf(key string, p payments.Payment) payments.Command {
	return payments.Command{
		Claim: claim("charge", key, fmt.Sprint(p.Customer, p.Amount)),
		Needs: payments.Needs{Accounts: []ledger.Key{p.CustomerAccount(), p.MerchantAccount()}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			if _, err := w.Book.Move(legs(w, &p, p.Amount), ledger.Note{Reference: string(p.ID), At: w.Now()}); err != nil {
				return payments.Outcome{}, err
			}
			p := p
			p.State, p.Captured = payments.StateCaptured, p.Amount
			return payments.Outcome{Payment: w.Put(p, payments.TransactionCharged, p.Amount)}, nil
		},
	}
}

func legs(w *payments.Work, p *payments.Payment, amount int64) []ledger.Leg {
	return []ledger.Leg{
		{Account: w.Account(p.CustomerAccount()).Number, Amount: -amount},
		{Account: w.Account(p.MerchantAccount()).Number, Amount: amount},
	}
}

// authorize returns the command that holds an amount.
func authorize(key string, customer payments.CustomerID, amount int64) payments.Command {
	c := charge(key, customer, amount)
	p := payments.Payment{ID: paymentID(), Order: "X2", Customer: customer, Amount: amount, Currency: "EUR"}
	c.Run = func(w *payments.Work) (payments.Outcome, error) {
		p := p
		p.ExpiresAt = w.Now().Add(until)
		held, err := w.Book.Hold(legs(w, &p, amount), p.ExpiresAt, ledger.Note{Reference: string(p.ID), At: w.Now()})
		if err != nil {
			return payments.Outcome{}, err
		}
		p.State, p.Capturable, p.Hold = payments.StateAuthorized, amount, held.Number
		return payments.Outcome{Payment: w.Put(p, payments.TransactionAuthorized, amount)}, nil
	}
	return c
}

// refund returns the command that gives amount back.
func refund(key string, id payments.ID, amount int64) payments.Command {
	return payments.Command{
		Claim: claim("refund", key, fmt.Sprint(id, amount)), Needs: payments.Needs{Payments: []payments.ID{id}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			p, err := w.Payment(id)
			if err != nil {
				return payments.Outcome{}, err
			}
			if p.Captured-p.Refunded < amount {
				return payments.Outcome{}, ledger.ErrAmountExceeded
			}
			if _, err := w.Book.Move(legs(w, &p, -amount), ledger.Note{Reference: string(id), At: w.Now()}); err != nil {
				return payments.Outcome{}, err
			}
			p.Refunded += amount
			p.State = payments.StatePartiallyRefunded
			if p.Refunded == p.Captured {
				p.State = payments.StateRefunded
			}
			return payments.Outcome{Payment: w.Put(p, payments.TransactionRefunded, amount)}, nil
		},
	}
}

// open returns the command that opens an account; a limit below zero is none.
func open(owner string, limit int64) payments.Command {
	key := ledger.Key{Owner: owner, Kind: ledger.General, Currency: "EUR"}
	id := ledger.AccountID(paymentID())
	return payments.Command{
		Claim: claim("open", owner, owner), Needs: payments.Needs{Accounts: []ledger.Key{key}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			a, err := w.Book.Open(ledger.Account{
				ID: id, Key: key, Limited: limit >= 0, Limit: max(limit, 0), Metadata: map[string]string{"name": owner}, CreatedAt: w.Now(),
			})
			if err != nil {
				return payments.Outcome{}, err
			}
			return payments.Outcome{Account: *a}, nil
		},
	}
}

// transfer returns the command that moves amount from one account to another, or holds it.
func transfer(key string, from, to ledger.AccountID, amount int64, hold time.Duration) payments.Command {
	return payments.Command{
		Claim: claim("transfer", key, fmt.Sprint(from, to, amount)), Needs: payments.Needs{IDs: []ledger.AccountID{from, to}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			a, b := w.Book.AccountByID(from), w.Book.AccountByID(to)
			if a == nil || b == nil {
				return payments.Outcome{}, ledger.ErrAccountNotFound
			}
			legs := []ledger.Leg{{Account: a.Number, Amount: -amount}, {Account: b.Number, Amount: amount}}
			note := ledger.Note{At: w.Now(), Metadata: map[string]string{"why": "test"}}
			var (
				t   *ledger.Transfer
				err error
			)
			if hold > 0 {
				t, err = w.Book.Hold(legs, w.Now().Add(hold), note)
			} else {
				t, err = w.Book.Move(legs, note)
			}
			if err != nil {
				return payments.Outcome{}, err
			}
			return payments.Outcome{Transfers: []ledger.Transfer{*t}}, nil
		},
	}
}

// do runs a command that must come through.
func do(t *testing.T, s Store, c payments.Command) payments.Outcome {
	t.Helper()
	o, err := s.Do(limit(t), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sound checks that the books are whole.
func sound(t *testing.T, s Store) {
	t.Helper()
	proof, err := s.Verify(limit(t))
	if err != nil || len(proof.Findings) > 0 {
		t.Errorf("the books: %v, %v", proof.Findings, err)
	}
}

// has returns what the account with the key has and holds.
func has(t *testing.T, s Store, key ledger.Key) (balance, held int64) {
	t.Helper()
	all, err := s.Accounts(limit(t), key.Owner, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.Key == key {
			return a.Balance, a.Held
		}
	}
	return 0, 0
}

// atOnce runs n functions at the same time.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
