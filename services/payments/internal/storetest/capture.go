package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

func capturedIsKept(t *testing.T, db Database) {
	s := open(t, db)
	p := payment(ann, 1, 1250)
	p.Metadata = map[string]string{"cart": "7", "note": ""}
	r, err := s.Capture(t.Context(), claimOf(p), posting(p))
	if err != nil || r.Replayed {
		t.Fatalf("Capture = %+v, %v", r, err)
	}
	got, err := s.Get(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	found, ok, err := s.Lookup(t.Context(), claimOf(p))
	if err != nil || !ok {
		t.Fatalf("Lookup = %v, %v", ok, err)
	}
	listed, err := s.List(t.Context(), payments.Query{Limit: 10})
	if err != nil || len(listed) != 1 {
		t.Fatalf("List = %v, %v", listed, err)
	}
	for name, q := range map[string]payments.Payment{"Capture": r.Payment, "Get": got, "Lookup": found, "List": listed[0]} {
		if !reflect.DeepEqual(q, p) {
			t.Errorf("%s returned %+v, want %+v", name, q, p)
		}
	}
	verify(t, s)
}

func missingIsNotFound(t *testing.T, db Database) {
	s := open(t, db)
	if _, err := s.Get(t.Context(), payment(ann, 1, 100).ID); !errors.Is(err, payments.ErrPaymentNotFound) {
		t.Errorf("Get: %v", err)
	}
	if p, ok, err := s.Lookup(t.Context(), claim("k", "a")); ok || err != nil {
		t.Errorf("Lookup = %+v, %v, %v", p, ok, err)
	}
	if list, err := s.List(t.Context(), payments.Query{Limit: 10}); len(list) != 0 || err != nil {
		t.Errorf("List = %v, %v", list, err)
	}
	verify(t, s)
}

func equalClaimReplays(t *testing.T, db Database) {
	s := open(t, db)
	first, second := payment(ann, 1, 100), payment(ann, 2, 100)
	if _, err := s.Capture(t.Context(), claim("k", "a"), posting(first)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Capture(t.Context(), claim("k", "a"), posting(second))
	if err != nil {
		t.Fatal(err)
	}
	if want := (payments.Receipt{Payment: first, Replayed: true}); !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if _, err := s.Get(t.Context(), second.ID); !errors.Is(err, payments.ErrPaymentNotFound) {
		t.Errorf("the second payment: %v", err)
	}
	verify(t, s)
}

func otherContentIsRefused(t *testing.T, db Database) {
	s := open(t, db)
	first := payment(ann, 1, 100)
	if _, err := s.Capture(t.Context(), claim("k", "a"), posting(first)); err != nil {
		t.Fatal(err)
	}
	other := claim("k", "b")
	if _, err := s.Capture(t.Context(), other, posting(payment(ann, 2, 200))); !errors.Is(err, payments.ErrIdempotencyKeyReused) {
		t.Errorf("Capture: %v", err)
	}
	if _, _, err := s.Lookup(t.Context(), other); !errors.Is(err, payments.ErrIdempotencyKeyReused) {
		t.Errorf("Lookup: %v", err)
	}
	list, err := s.List(t.Context(), payments.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	wantPayments(t, list, first)
	verify(t, s)
}

func keysAreScoped(t *testing.T, db Database) {
	s := open(t, db)
	mine := claim("k", "a")
	before, after, other, longer := mine, mine, mine, mine
	before.Caller, after.Caller = "user:a", "user:bob" // in the order of texts
	other.Method = "refund"
	longer.Key = "kk"
	for i, c := range []payments.Claim{mine, before, after, other, longer} {
		if _, ok, err := s.Lookup(t.Context(), c); ok || err != nil {
			t.Errorf("Lookup of %s %s before its capture = %v, %v", c.Caller, c.Method, ok, err)
		}
		r, err := s.Capture(t.Context(), c, posting(payment(ann, i, 100)))
		if err != nil || r.Replayed {
			t.Errorf("Capture of %s %s = %+v, %v", c.Caller, c.Method, r, err)
		}
	}
	verify(t, s)
}

// together calls fn for 0 to n-1 at the same time and waits for all.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

func thousandEqual(t *testing.T, db Database) {
	const n = 1000
	s := open(t, db)
	receipts, errs := make([]payments.Receipt, n), make([]error, n)
	together(n, func(i int) {
		receipts[i], errs[i] = s.Capture(t.Context(), claim("k", "a"), posting(payment(ann, i, 100)))
	})
	made := 0
	for i, r := range receipts {
		if errs[i] != nil {
			t.Fatalf("capture %d: %v", i, errs[i])
		}
		if !r.Replayed {
			made++
		}
		if !reflect.DeepEqual(r.Payment, receipts[0].Payment) {
			t.Fatalf("capture %d got %+v, capture 0 %+v", i, r.Payment, receipts[0].Payment)
		}
	}
	if made != 1 {
		t.Errorf("%d captures made a payment, want 1", made)
	}
	list, err := s.List(t.Context(), payments.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	wantPayments(t, list, receipts[0].Payment)
	verify(t, s)
}

func concurrentCaptures(t *testing.T, db Database) {
	const n = 200
	s := open(t, db)
	errs := make([]error, n)
	together(n, func(i int) {
		p := payment([]payments.CustomerID{ann, bob}[i%2], i, int64(100+i))
		p.Currency = []payments.Currency{"EUR", "JPY", "KWD"}[i%3]
		_, errs[i] = s.Capture(t.Context(), claimOf(p), posting(p))
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), payments.Query{Limit: n + 1})
	if err != nil || len(list) != n {
		t.Errorf("%d payments, %v; want %d", len(list), err, n)
	}
	verify(t, s)
}

func concurrentConflict(t *testing.T, db Database) {
	const n = 50
	s := open(t, db)
	errs := make([]error, n)
	together(n, func(i int) {
		_, errs[i] = s.Capture(t.Context(), claim("k", fmt.Sprint(i)), posting(payment(ann, i, int64(100+i))))
	})
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, payments.ErrIdempotencyKeyReused):
			t.Errorf("capture %d: %v", i, err)
		}
	}
	if won != 1 {
		t.Errorf("%d captures won, want 1", won)
	}
	verify(t, s)
}

func merchantOverflow(t *testing.T, db Database) {
	s := open(t, db)
	add(t, s, payment(ann, 1, math.MaxInt64-100))
	p := payment(bob, 2, 101)
	if _, err := s.Capture(t.Context(), claimOf(p), posting(p)); !errors.Is(err, payments.ErrBalanceOverflow) {
		t.Fatalf("Capture: %v", err)
	}
	nothingLeft(t, s, p)
	add(t, s, payment(bob, 3, 100)) // the last that fits
}

func customerOverflow(t *testing.T, db Database) {
	s := open(t, db)
	big := payment(ann, 1, math.MaxInt64)
	add(t, s, big) // ann stands at -MaxInt64, one above the lowest
	p := payment(ann, 2, 2)
	if _, err := s.Capture(t.Context(), claimOf(p), posting(p)); !errors.Is(err, payments.ErrBalanceOverflow) {
		t.Fatalf("Capture: %v", err)
	}
	nothingLeft(t, s, p)
}

// nothingLeft checks that a refused capture can be repeated as if it had never been tried.
func nothingLeft(t *testing.T, s Store, p payments.Payment) {
	t.Helper()
	if _, ok, err := s.Lookup(t.Context(), claimOf(p)); ok || err != nil {
		t.Errorf("Lookup of the refused capture = %v, %v", ok, err)
	}
	if _, err := s.Get(t.Context(), p.ID); !errors.Is(err, payments.ErrPaymentNotFound) {
		t.Errorf("Get of the refused capture: %v", err)
	}
	verify(t, s)
}

func currenciesAreApart(t *testing.T, db Database) {
	s := open(t, db)
	add(t, s, payment(ann, 1, math.MaxInt64))
	p := payment(ann, 2, math.MaxInt64)
	p.Currency = "USD"
	add(t, s, p)
	verify(t, s)
}

func unbalancedIsRefused(t *testing.T, db Database) {
	s := open(t, db)
	p := payment(ann, 1, 100)
	for name, change := range map[string]func(*payments.Posting){
		"an entry is missing":           func(p *payments.Posting) { p.Entries = p.Entries[:1] },
		"the entries do not sum to 0":   func(p *payments.Posting) { p.Entries[1].Amount++ },
		"the entries move another sum":  func(p *payments.Posting) { p.Entries[0].Amount, p.Entries[1].Amount = -99, 99 },
		"the money goes the other way":  func(p *payments.Posting) { p.Entries[0].Amount, p.Entries[1].Amount = 100, -100 },
		"an entry has another currency": func(p *payments.Posting) { p.Entries[1].Account.Currency = "USD" },
		"both entries are on one":       func(p *payments.Posting) { p.Entries[1].Account = p.Entries[0].Account },
		"the amount is below zero": func(q *payments.Posting) {
			p := p
			p.Amount = -100
			*q = posting(p)
		},
	} {
		bad := posting(p)
		change(&bad)
		if _, err := s.Capture(t.Context(), claimOf(p), bad); err == nil {
			t.Errorf("%s, and it was captured", name)
		}
	}
	nothingLeft(t, s, p)
}

func canceledCapture(t *testing.T, db Database) {
	s := open(t, db)
	p := payment(ann, 1, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Capture(ctx, claimOf(p), posting(p)); !errors.Is(err, context.Canceled) {
		t.Errorf("Capture: %v", err)
	}
	nothingLeft(t, s, p)
	add(t, s, p)
	verify(t, s)
}
