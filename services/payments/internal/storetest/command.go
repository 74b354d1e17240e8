package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

func chargeIsKept(t *testing.T, db Database) {
	s := db.Open(t)
	c := charge("k", ann, 150)
	p := do(t, s, c).Payment
	if p.Number != 1 || p.Captured != 150 || p.CreatedAt.IsZero() || !p.UpdatedAt.Equal(p.CreatedAt) {
		t.Errorf("made %+v", p)
	}
	got, err := s.Payment(limit(t), p.ID)
	wantError(t, err, nil)
	wantEqual(t, got, p)
	all, err := s.Payments(limit(t), payments.Query{Limit: 10})
	wantError(t, err, nil)
	wantEqual(t, all, []payments.Payment{p})
	kept, found, err := s.Lookup(limit(t), c.Claim)
	if err != nil || !found {
		t.Errorf("looked up: %v, %v", found, err)
	}
	wantEqual(t, kept.Payment, p)
	sound(t, s)
}

func missingIsNotFound(t *testing.T, db Database) {
	s := db.Open(t)
	_, err := s.Payment(limit(t), payments.ID(uuid(1)))
	wantError(t, err, payments.ErrPaymentNotFound)
	_, err = s.Account(limit(t), ledger.AccountID(uuid(1)), time.Time{})
	wantError(t, err, ledger.ErrAccountNotFound)
	_, _, err = s.Transfer(limit(t), 1)
	wantError(t, err, ledger.ErrTransferNotFound)
	if _, found, err := s.Lookup(limit(t), claim("charge", "k", "")); found || err != nil {
		t.Errorf("a key: %v, %v", found, err)
	}
	for _, c := range []payments.Command{refund("r", payments.ID(uuid(1)), 1), transfer("t", ledger.AccountID(uuid(1)), ledger.AccountID(uuid(2)), 1, 0)} {
		if _, err := s.Do(limit(t), c); !errors.Is(err, payments.ErrPaymentNotFound) && !errors.Is(err, ledger.ErrAccountNotFound) {
			t.Errorf("a command: %v", err)
		}
	}
	entries, err := s.Entries(limit(t), ledger.AccountID(uuid(1)), 0, 10)
	if err != nil || len(entries) != 0 {
		t.Errorf("entries: %v, %v", entries, err)
	}
	sound(t, s)
}

func equalClaimReplays(t *testing.T, db Database) {
	s := db.Open(t)
	first := do(t, s, charge("k", ann, 150)).Payment
	do(t, s, refund("r", first.ID, 150))
	again := do(t, s, charge("k", ann, 150))
	if !again.Replayed {
		t.Error("it is not replayed")
	}
	wantEqual(t, again.Payment, first)
	kept, _, err := s.Lookup(limit(t), claim("charge", "k", fmt.Sprint(ann, 150)))
	wantError(t, err, nil)
	wantEqual(t, kept.Payment, first)
	if now, err := s.Payment(limit(t), first.ID); err != nil || now.State != payments.StateRefunded {
		t.Errorf("now %+v, %v", now, err)
	}
	account := do(t, s, open("a", 5))
	other := do(t, s, open("b", -1))
	moved := do(t, s, transfer("t", other.Account.ID, account.Account.ID, 7, 0))
	for _, c := range []struct {
		command payments.Command
		want    payments.Outcome
	}{
		{open("a", 5), account},
		{transfer("t", other.Account.ID, account.Account.ID, 7, 0), moved},
	} {
		again := do(t, s, c.command)
		c.want.Replayed = true
		wantEqual(t, again, c.want)
	}
	sound(t, s)
}

func otherContentIsRefused(t *testing.T, db Database) {
	s := db.Open(t)
	do(t, s, charge("k", ann, 150))
	_, err := s.Do(limit(t), charge("k", ann, 151))
	wantError(t, err, payments.ErrIdempotencyKeyReused)
	_, _, err = s.Lookup(limit(t), claim("charge", "k", "other"))
	wantError(t, err, payments.ErrIdempotencyKeyReused)
	if balance, _ := has(t, s, payments.MerchantAccount("EUR")); balance != 150 {
		t.Errorf("the merchant has %d", balance)
	}
}

func keysAreScoped(t *testing.T, db Database) {
	s := db.Open(t)
	for i, c := range []payments.Key{
		{Caller: "a", Method: "charge", Key: "k"}, {Caller: "b", Method: "charge", Key: "k"}, {Caller: "a", Method: "other", Key: "k"},
		{Caller: "ac", Method: "harge", Key: "k"},
	} {
		command := charge("k", ann, 150)
		command.Claim.Key = c
		if o := do(t, s, command); o.Replayed || o.Payment.Number != int64(i+1) {
			t.Errorf("%+v: %+v", c, o)
		}
	}
}

func thousandEqual(t *testing.T, db Database) {
	s := db.Open(t)
	outcomes := make([]payments.Outcome, 1000)
	atOnce(len(outcomes), func(i int) {
		var err error
		if outcomes[i], err = s.Do(limit(t), charge("k", ann, 150)); err != nil {
			t.Error(err)
		}
	})
	fresh := 0
	for _, o := range outcomes {
		if !o.Replayed {
			fresh++
		}
		o.Replayed = false
		wantEqual(t, o.Payment, outcomes[0].Payment)
	}
	if balance, _ := has(t, s, payments.MerchantAccount("EUR")); fresh != 1 || balance != 150 {
		t.Errorf("%d were made, the merchant has %d", fresh, balance)
	}
	sound(t, s)
}

func concurrentCharges(t *testing.T, db Database) {
	s := db.Open(t)
	atOnce(300, func(i int) {
		customer := ann
		if i%2 == 0 {
			customer = bob
		}
		if _, err := s.Do(limit(t), charge(fmt.Sprint(i), customer, 50+int64(i))); err != nil {
			t.Error(err)
		}
	})
	want := int64(300*50 + 299*300/2)
	if balance, _ := has(t, s, payments.MerchantAccount("EUR")); balance != want {
		t.Errorf("the merchant has %d, want %d", balance, want)
	}
	sound(t, s)
}

func oppositeTransfers(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", -1)).Account, do(t, s, open("b", -1)).Account
	atOnce(200, func(i int) {
		from, to := a.ID, b.ID
		if i%2 == 0 {
			from, to = to, from
		}
		for n := range 5 {
			if _, err := s.Do(limit(t), transfer(fmt.Sprint(i, n), from, to, int64(1+i%2), 0)); err != nil {
				t.Error(err)
			}
		}
	})
	if balance, _ := has(t, s, a.Key); balance != -500*2+500 {
		t.Errorf("a has %d", balance)
	}
	sound(t, s)
}

func concurrentRefunds(t *testing.T, db Database) {
	s := db.Open(t)
	p := do(t, s, charge("k", ann, 1000)).Payment
	var mu sync.Mutex
	given := int64(0)
	atOnce(300, func(i int) {
		_, err := s.Do(limit(t), refund(fmt.Sprint(i), p.ID, 7))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			given += 7
		case !errors.Is(err, ledger.ErrAmountExceeded):
			t.Error(err)
		}
	})
	got, err := s.Payment(limit(t), p.ID)
	if err != nil || given != 994 || got.Refunded != given {
		t.Errorf("given back %d, the payment says %d, %v", given, got.Refunded, err)
	}
	sound(t, s)
}

// beside runs commands at the same time and returns their errors.
func beside(t *testing.T, s Store, commands ...payments.Command) []error {
	errs := make([]error, len(commands))
	atOnce(len(commands), func(i int) { _, errs[i] = s.Do(limit(t), commands[i]) })
	return errs
}

func refusedAlone(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", 0)).Account, do(t, s, open("b", -1)).Account
	var commands []payments.Command
	for i := range 40 {
		commands = append(commands, transfer(fmt.Sprint("good", i), b.ID, b2(t, s, i).ID, 1, 0), transfer(fmt.Sprint("bad", i), a.ID, b.ID, 1, 0))
	}
	for i, err := range beside(t, s, commands...) {
		if want := error(nil); i%2 == 0 {
			wantError(t, err, want)
		} else {
			wantError(t, err, ledger.ErrOverdrawn)
		}
	}
	if balance, _ := has(t, s, b.Key); balance != -40 {
		t.Errorf("b has %d", balance)
	}
	// Its key was not taken.
	do(t, s, transfer("fill", b.ID, a.ID, 1, 0))
	if o := do(t, s, transfer("bad0", a.ID, b.ID, 1, 0)); o.Replayed {
		t.Error("what was refused is replayed")
	}
	sound(t, s)
}

func b2(t *testing.T, s Store, i int) ledger.Account {
	return do(t, s, open(fmt.Sprint("to", i), -1)).Account
}

func panicsAlone(t *testing.T, db Database) {
	s := db.Open(t)
	bad := charge("bad", ann, 150)
	run := bad.Run
	bad.Run = func(w *payments.Work) (payments.Outcome, error) {
		if _, err := run(w); err != nil {
			return payments.Outcome{}, err
		}
		panic("a mistake")
	}
	commands := []payments.Command{bad}
	for i := range 20 {
		commands = append(commands, charge(fmt.Sprint(i), ann, 150))
	}
	for i, err := range beside(t, s, commands...) {
		if (i == 0) != (err != nil) {
			t.Errorf("command %d: %v", i, err)
		}
		if i == 0 && !strings.Contains(fmt.Sprint(err), "a mistake") {
			t.Errorf("the panic: %v", err)
		}
	}
	if balance, _ := has(t, s, payments.MerchantAccount("EUR")); balance != 20*150 {
		t.Errorf("the merchant has %d", balance)
	}
	sound(t, s)
}

// A payment with the id of another one cannot be written: the domain never makes one, and whatever it is that a
// database refuses, those beside it must not suffer.
func poisonedAlone(t *testing.T, db Database) {
	s := db.Open(t)
	first := do(t, s, charge("k", ann, 150)).Payment
	poison := payments.Command{
		Claim: claim("charge", "poison", ""),
		Run: func(w *payments.Work) (payments.Outcome, error) {
			p := first
			return payments.Outcome{Payment: w.Put(p, payments.TransactionFailed, 1)}, nil
		},
	}
	commands := []payments.Command{poison}
	for i := range 30 {
		commands = append(commands, charge(fmt.Sprint(i), ann, 150))
	}
	for i, err := range beside(t, s, commands...) {
		if (i == 0) != (err != nil) {
			t.Errorf("command %d: %v", i, err)
		}
	}
	if balance, _ := has(t, s, payments.MerchantAccount("EUR")); balance != 31*150 {
		t.Errorf("the merchant has %d", balance)
	}
	sound(t, s)
}

func timeIsOver(t *testing.T, db Database) {
	s := db.Open(t)
	why := errors.New("the caller is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := s.Do(ctx, charge("k", ann, 150))
	wantError(t, err, why)
	if all, err := s.Payments(limit(t), payments.Query{Limit: 10}); err != nil || len(all) != 0 {
		t.Errorf("made %+v, %v", all, err)
	}
}

func states(t *testing.T, db Database) {
	s := db.Open(t)
	p := do(t, s, authorize("k", ann, 100)).Payment
	if balance, held := has(t, s, p.CustomerAccount()); balance != 0 || held != 100 {
		t.Errorf("the customer has %d and holds %d", balance, held)
	}
	change := func(key string, what payments.TransactionType, amount int64, f func(w *payments.Work, p *payments.Payment) error) payments.Payment {
		return do(t, s, payments.Command{
			Claim: claim("change", key, key), Needs: payments.Needs{Payments: []payments.ID{p.ID}},
			Run: func(w *payments.Work) (payments.Outcome, error) {
				got, err := w.Payment(p.ID)
				if err != nil {
					return payments.Outcome{}, err
				}
				if err := f(w, &got); err != nil {
					return payments.Outcome{}, err
				}
				return payments.Outcome{Payment: w.Put(got, what, amount)}, nil
			},
		}).Payment
	}
	note := func(w *payments.Work) ledger.Note { return ledger.Note{Reference: string(p.ID), At: w.Now()} }
	captured := change("c", payments.TransactionCaptured, 60, func(w *payments.Work, p *payments.Payment) error {
		_, err := w.Book.Post(p.Hold, 60, note(w))
		p.Captured, p.Capturable, p.State = 60, 40, payments.StateCaptured
		return err
	})
	sound(t, s)
	change("v", payments.TransactionCanceled, 40, func(w *payments.Work, p *payments.Payment) error {
		_, err := w.Book.Void(p.Hold, note(w))
		p.Capturable, p.ExpiresAt = 0, time.Time{}
		return err
	})
	sound(t, s)
	if balance, held := has(t, s, p.CustomerAccount()); balance != -60 || held != 0 {
		t.Errorf("the customer has %d and holds %d", balance, held)
	}
	again, found, err := s.Lookup(limit(t), claim("change", "c", "c"))
	if err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	wantEqual(t, again.Payment, captured)
	declined := do(t, s, payments.Command{Claim: claim("charge", "d", ""), Run: func(w *payments.Work) (payments.Outcome, error) {
		p := payments.Payment{ID: paymentID(), Order: "o", Customer: bob, Amount: 5, Currency: "EUR", State: payments.StateFailed, Decline: payments.ExpiredCard}
		return payments.Outcome{Payment: w.Put(p, payments.TransactionFailed, 5)}, nil
	}}).Payment
	got, err := s.Payment(limit(t), declined.ID)
	wantError(t, err, nil)
	wantEqual(t, got, declined)
	sound(t, s)
}

func inFlight(t *testing.T, db Database) {
	s := db.Open(t)
	op := payments.Operation{
		Key: "asked", Kind: payments.OpAuthorize, Token: "tok", Amount: 100, Currency: "EUR", Final: true,
	}
	begin := processing("k", &op)
	begun := do(t, s, begin)
	if begun.Open == nil || begun.Open.Claim != begin.Claim || begun.Open.At.IsZero() {
		t.Fatalf("begun: %+v", begun)
	}
	sound(t, s)
	_, err := s.Do(limit(t), begin)
	wantError(t, err, payments.ErrInFlight)
	_, _, err = s.Lookup(limit(t), begin.Claim)
	wantError(t, err, payments.ErrInFlight)
	if none, err := s.Intents(limit(t), begun.Open.At, nil, 10); err != nil || len(none) != 0 {
		t.Errorf("intents before it: %v, %v", none, err)
	}
	s.Close()
	s = db.Open(t)
	intents, err := s.Intents(limit(t), begun.Open.At.Add(time.Microsecond), nil, 10)
	wantError(t, err, nil)
	wantEqual(t, intents, []payments.Intent{*begun.Open})
	settle := payments.Command{
		Claim: begin.Claim, Resolves: true, Needs: payments.Needs{Payments: []payments.ID{op.Payment}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			p, err := w.Payment(op.Payment)
			if err != nil {
				return payments.Outcome{}, err
			}
			p.State, p.Busy, p.Capturable = payments.StateAuthorized, false, 100
			return payments.Outcome{Payment: w.Put(p, payments.TransactionAuthorized, 100)}, nil
		},
	}
	settled := do(t, s, settle)
	if again := do(t, s, settle); !again.Replayed {
		t.Error("it was settled twice")
	}
	again := do(t, s, begin)
	if !again.Replayed {
		t.Error("it was begun twice")
	}
	wantEqual(t, again.Payment, settled.Payment)
	if none, err := s.Intents(limit(t), begun.Open.At.Add(time.Hour), nil, 10); err != nil || len(none) != 0 {
		t.Errorf("intents after it: %v, %v", none, err)
	}
	sound(t, s)
}
