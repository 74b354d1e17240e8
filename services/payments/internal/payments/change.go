package payments

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

var zeroTime time.Time

// change is one thing that is done to a payment, with the processor's consent.
type change struct {
	claim Claim
	op    Operation
	needs Needs
	// begin is for a remote processor: it checks whether the change can be made and makes it impossible for others to
	// come in between. A payment that it does not return Busy is the outcome, and nobody is asked.
	begin func(w *Work) (Payment, error)
	// settle makes the change by what an immediate processor has said.
	settle func(w *Work, decline Decline) (Payment, error)
}

// perform makes a change: an immediate processor is asked first, and then all is written at once. A remote one is
// asked between two writes, of what it is to be asked and of what it has said: whoever dies in between, the intent is
// there.
func (s *Service) perform(ctx context.Context, c change) (Outcome, error) {
	if s.processor.Immediate(c.op) {
		decline, err := s.processor.Process(ctx, c.op)
		if err != nil {
			return Outcome{}, ErrProcessorUnavailable.Because(err)
		}
		return s.store.Do(ctx, Command{Claim: c.claim, Needs: c.needs, Run: func(w *Work) (Outcome, error) {
			p, err := c.settle(w, decline)
			return Outcome{Payment: p}, err
		}})
	}
	defer s.asked.add(c.op.Key)()
	begun, err := s.store.Do(ctx, Command{Claim: c.claim, Needs: c.needs, Run: func(w *Work) (Outcome, error) {
		p, err := c.begin(w)
		if err != nil || !p.Busy {
			return Outcome{Payment: p}, err
		}
		return Outcome{Payment: p, Open: &Intent{Operation: c.op}}, nil
	}})
	if err != nil || begun.Open == nil {
		return begun, err
	}
	return s.resolve(ctx, *begun.Open)
}

// resolve asks the processor what an intent asks for, and writes down what it says.
func (s *Service) resolve(ctx context.Context, intent Intent) (Outcome, error) {
	decline, err := s.processor.Process(ctx, intent.Operation)
	if err != nil {
		return Outcome{}, ErrProcessorUnavailable.Because(err)
	}
	op := intent.Operation
	return s.store.Do(ctx, Command{
		Claim: intent.Claim, Resolves: true, Needs: Needs{Payments: []ID{op.Payment}},
		Run: func(w *Work) (Outcome, error) {
			p, err := w.Payment(op.Payment)
			if err != nil {
				return Outcome{}, err
			}
			p, err = s.settled(w, p, op, decline)
			return Outcome{Payment: p}, err
		},
	})
}

// settled makes the change of a payment that is there which a processor has consented to, or makes none where it has
// declined: then the payment is where it was, and what was to be captured or given back still can be.
func (s *Service) settled(w *Work, p Payment, op Operation, decline Decline) (Payment, error) {
	p.Busy = false
	switch {
	case op.Kind == OpCharge || op.Kind == OpAuthorize:
		return s.settleCharge(w, p, op, decline)
	case decline != NotDeclined:
		return w.PutDeclined(p, op.Amount, decline), nil
	case op.Kind == OpCapture:
		return capture(w, p, op.Amount, op.Final)
	case op.Kind == OpCancel:
		return release(w, p, TransactionCanceled)
	case op.Kind == OpRefund:
		return refund(w, p, op.Amount)
	}
	return Payment{}, fmt.Errorf("payment %s has an intent of an unknown kind, %q", p.ID, op.Kind)
}

// Capture captures what was authorized: amount, or all that is left where that is zero. final releases what is left
// after it. Where the processor declines, the outcome is the payment as it was, with Decline saying why: final for its
// key, as an outcome is, and not kept on the payment.
//
// It returns ErrPaymentNotFound, also for a viewer who may not see the payment, ledger.ErrStateConflict,
// ledger.ErrAmountExceeded, ledger.ErrBalanceOverflow, and as Charge does.
func (s *Service) Capture(
	ctx context.Context, caller, key string, viewer Viewer, id ID, amount int64, final bool,
) (Outcome, error) {
	claim := Claim{Key{caller, methodCapture, key}, changeDigest(methodCapture, id, amount, final)}
	return s.change(ctx, claim, viewer, id, OpCapture, final, func(w *Work, p Payment) (int64, error) {
		return capturable(w, p, amount)
	})
}

// Cancel releases what was authorized and not captured. It returns as Capture does.
func (s *Service) Cancel(ctx context.Context, caller, key string, viewer Viewer, id ID) (Outcome, error) {
	claim := Claim{Key{caller, methodCancel, key}, changeDigest(methodCancel, id, 0, false)}
	return s.change(ctx, claim, viewer, id, OpCancel, false, func(w *Work, p Payment) (int64, error) {
		return capturable(w, p, 0)
	})
}

// Refund gives back what was captured: amount, or all that is left where that is zero. It returns as Capture does.
func (s *Service) Refund(ctx context.Context, caller, key string, viewer Viewer, id ID, amount int64) (Outcome, error) {
	claim := Claim{Key{caller, methodRefund, key}, changeDigest(methodRefund, id, amount, false)}
	return s.change(ctx, claim, viewer, id, OpRefund, false, func(_ *Work, p Payment) (int64, error) {
		return refundable(p, amount)
	})
}

// change makes a change of a payment that is there. check returns how much it is about, or why it cannot be.
func (s *Service) change(
	ctx context.Context, claim Claim, viewer Viewer, id ID, kind OperationKind, final bool,
	check func(w *Work, p Payment) (int64, error),
) (Outcome, error) {
	// The look is for what never changes of a payment: whose it is, and its currency; and how much a remote processor
	// would be asked for, which begin holds against the truth.
	before, err := s.Get(ctx, viewer, id)
	if err != nil {
		return Outcome{}, err
	}
	op := Operation{Key: operationKey(claim.Key), Kind: kind, Payment: id, Currency: before.Currency, Final: final}
	ready := func(w *Work) (Payment, int64, error) {
		p, err := w.Payment(id)
		if err != nil {
			return Payment{}, 0, err
		}
		if p.Busy {
			return Payment{}, 0, ErrInFlight
		}
		amount, err := check(w, p)
		return p, amount, err
	}
	if !s.processor.Immediate(op) {
		return s.changeRemotely(ctx, claim, op, ready)
	}
	return s.perform(ctx, change{
		claim: claim, op: op, needs: Needs{Payments: []ID{id}},
		settle: func(w *Work, decline Decline) (Payment, error) {
			p, amount, err := ready(w)
			if err != nil {
				return Payment{}, err
			}
			op.Amount = amount
			return s.settled(w, p, op, decline)
		},
	})
}

// changeRemotely makes a change that a remote processor is asked for: of how much is known only once it is written
// down.
func (s *Service) changeRemotely(
	ctx context.Context, claim Claim, op Operation, ready func(w *Work) (Payment, int64, error),
) (Outcome, error) {
	defer s.asked.add(op.Key)()
	begun, err := s.store.Do(ctx, Command{
		Claim: claim, Needs: Needs{Payments: []ID{op.Payment}},
		Run: func(w *Work) (Outcome, error) {
			p, amount, err := ready(w)
			if err != nil {
				return Outcome{}, err
			}
			op.Amount = amount
			p.Busy = true
			return Outcome{Payment: w.Put(p, TransactionProcessing, amount), Open: &Intent{Operation: op}}, nil
		},
	})
	if err != nil || begun.Open == nil {
		return begun, err
	}
	return s.resolve(ctx, *begun.Open)
}

// errBelowZero is a mistake of the program: the contract has refused the amount.
var errBelowZero = errors.New("an amount is below zero")

// capturable returns how much can be captured of p when amount is asked for.
func capturable(w *Work, p Payment, amount int64) (int64, error) {
	switch {
	case amount < 0:
		return 0, errBelowZero
	case p.Capturable == 0:
		return 0, ledger.ErrStateConflict.With("state", string(p.State))
	case !p.ExpiresAt.After(w.Now()):
		return 0, ledger.ErrStateConflict.With("state", "EXPIRED")
	case amount > p.Capturable:
		return 0, ledger.ErrAmountExceeded.With("available_cents", strconv.FormatInt(p.Capturable, 10))
	case amount == 0:
		return p.Capturable, nil
	}
	return amount, nil
}

// refundable returns how much can be given back of p when amount is asked for.
func refundable(p Payment, amount int64) (int64, error) {
	left := p.Captured - p.Refunded
	switch {
	case amount < 0:
		return 0, errBelowZero
	case left == 0:
		return 0, ledger.ErrStateConflict.With("state", string(p.State))
	case amount > left:
		return 0, ledger.ErrAmountExceeded.With("available_cents", strconv.FormatInt(left, 10))
	case amount == 0:
		return left, nil
	}
	return amount, nil
}

func capture(w *Work, p Payment, amount int64, final bool) (Payment, error) {
	if _, err := w.Book.Post(p.Hold, amount, note(w, &p)); err != nil {
		return Payment{}, err
	}
	p.Captured += amount
	p.Capturable -= amount
	if final && p.Capturable > 0 {
		if _, err := w.Book.Void(p.Hold, note(w, &p)); err != nil {
			return Payment{}, err
		}
		p.Capturable = 0
	}
	return put(w, p, TransactionCaptured, amount), nil
}

// release gives up what may still be captured.
func release(w *Work, p Payment, what TransactionType) (Payment, error) {
	if _, err := w.Book.Void(p.Hold, note(w, &p)); err != nil {
		return Payment{}, err
	}
	amount := p.Capturable
	p.Capturable = 0
	return put(w, p, what, amount), nil
}

func refund(w *Work, p Payment, amount int64) (Payment, error) {
	if _, err := w.Book.Move(legs(w, &p, -amount), note(w, &p)); err != nil {
		return Payment{}, err
	}
	p.Refunded += amount
	return put(w, p, TransactionRefunded, amount), nil
}

// put writes a payment whose amounts have changed.
func put(w *Work, p Payment, what TransactionType, amount int64) Payment {
	if p.Capturable == 0 {
		p.ExpiresAt = zeroTime
	}
	p.State = p.stateOf()
	return w.Put(p, what, amount)
}

func changeDigest(method string, id ID, amount int64, final bool) Digest {
	h := sha256.New()
	writeText(h, "payments.v1/"+method)
	writeText(h, string(id))
	writeNumber(h, uint64(amount))
	writeBool(h, final)
	return Digest(h.Sum(nil))
}

// asked are the operations that this process is asking for now: nobody else here asks as well.
type asked struct {
	mu   sync.Mutex
	keys map[string]int
}

// add notes an operation; done ends that.
func (a *asked) add(key string) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil {
		a.keys = make(map[string]int)
	}
	a.keys[key]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.keys[key]--; a.keys[key] == 0 {
			delete(a.keys, key)
		}
	}
}

func (a *asked) has(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys[key] > 0
}
