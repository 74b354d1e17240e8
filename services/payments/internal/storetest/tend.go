package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// processing returns the command that holds 100 and writes down that a processor is asked for op, which gets the
// payment.
func processing(key string, op *payments.Operation) payments.Command {
	begin := authorize(key, ann, 100)
	run := begin.Run
	begin.Run = func(w *payments.Work) (payments.Outcome, error) {
		o, err := run(w)
		if err != nil {
			return o, err
		}
		o.Payment.State, o.Payment.Busy, o.Payment.Capturable = payments.StateProcessing, true, 0
		op.Payment = o.Payment.ID
		o.Payment = w.Put(o.Payment, payments.TransactionProcessing, 100)
		o.Open = &payments.Intent{Operation: *op}
		return o, nil
	}
	return begin
}

func intentPages(t *testing.T, db Database) {
	s := db.Open(t)
	const all = 7
	open := make(map[payments.ID]bool)
	var commands [all]payments.Operation
	errs := make([]error, all)
	atOnce(all, func(i int) { // so that some are of one moment, or may be
		_, errs[i] = s.Do(limit(t), processing(fmt.Sprint("k-", i), &commands[i]))
	})
	for i, err := range errs {
		wantError(t, err, nil)
		open[commands[i].Payment] = true
	}
	later := time.Now().Add(time.Hour)
	var after *payments.Intent
	for range all {
		page, err := s.Intents(limit(t), later, after, 2)
		wantError(t, err, nil)
		for _, i := range page {
			if !open[i.Operation.Payment] || after != nil && i.At.Before(after.At) {
				t.Errorf("%+v comes after %+v", i, after)
			}
			delete(open, i.Operation.Payment)
			after = &i
		}
	}
	if len(open) > 0 {
		t.Errorf("the pages do not have %v", open)
	}
	sound(t, s)
}

func expired(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", -1)).Account, do(t, s, open("b", -1)).Account
	late := do(t, s, transfer("late", a.ID, b.ID, 1, 2*time.Hour)).Transfers[0]
	soon := do(t, s, transfer("soon", a.ID, b.ID, 2, time.Hour)).Transfers[0]
	do(t, s, transfer("moved", a.ID, b.ID, 3, 0))
	for _, c := range []struct {
		at   time.Time
		want []ledger.Outstanding
	}{
		{soon.ExpiresAt.Add(-time.Microsecond), nil},
		{soon.ExpiresAt, []ledger.Outstanding{{Transfer: soon, Remaining: 2}}},
		{late.ExpiresAt, []ledger.Outstanding{{Transfer: soon, Remaining: 2}, {Transfer: late, Remaining: 1}}},
	} {
		got, err := s.Expired(limit(t), c.at, nil, 10)
		wantError(t, err, nil)
		wantEqual(t, got, c.want)
	}
	one, err := s.Expired(limit(t), late.ExpiresAt, nil, 1)
	if err != nil || len(one) != 1 {
		t.Fatalf("one of two: %v, %v", one, err)
	}
	other, err := s.Expired(limit(t), late.ExpiresAt, &one[0], 1)
	wantError(t, err, nil)
	wantEqual(t, other, []ledger.Outstanding{{Transfer: late, Remaining: 1}})
	if none, err := s.Expired(limit(t), late.ExpiresAt, &other[0], 1); err != nil || len(none) != 0 {
		t.Errorf("after the last: %v, %v", none, err)
	}
	do(t, s, payments.Command{Needs: payments.Needs{Transfers: []int64{soon.Number}}, Run: func(w *payments.Work) (payments.Outcome, error) {
		_, err := w.Book.Void(soon.Number, ledger.Note{At: w.Now()})
		return payments.Outcome{}, err
	}})
	got, err := s.Expired(limit(t), late.ExpiresAt, nil, 10)
	wantError(t, err, nil)
	wantEqual(t, got, []ledger.Outstanding{{Transfer: late, Remaining: 1}})
	sound(t, s)
}

func forgotten(t *testing.T, db Database) {
	s := db.Open(t)
	var last payments.Payment
	for i := range 5 {
		last = do(t, s, charge(fmt.Sprint(i), ann, 150)).Payment
	}
	open := charge("open", ann, 150)
	run := open.Run
	open.Run = func(w *payments.Work) (payments.Outcome, error) {
		o, err := run(w)
		o.Open = &payments.Intent{Operation: payments.Operation{Key: "x", Payment: o.Payment.ID}}
		return o, err
	}
	do(t, s, open)
	later := last.CreatedAt.Add(time.Hour)
	for i, c := range []struct {
		before time.Time
		limit  int
		want   int
	}{
		{last.CreatedAt.Add(-time.Hour), 10, 0}, {later, 2, 2}, {later, 10, 3}, {later, 10, 0},
	} {
		if n, err := s.Forget(limit(t), c.before, c.limit); err != nil || n != c.want {
			t.Errorf("step %d: forgot %d, %v; want %d", i, n, err, c.want)
		}
	}
	if o := do(t, s, charge("0", ann, 150)); o.Replayed {
		t.Error("what was forgotten is replayed")
	}
	_, err := s.Do(limit(t), open)
	wantError(t, err, payments.ErrInFlight)
}
