package payments

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

// The scopes of keys. Every way to charge shares one, so that a charge that was asked for over one way and repeated
// over another is made once.
const (
	methodCharge      = "charge"
	methodCapture     = "capture"
	methodCancel      = "cancel"
	methodRefund      = "refund"
	methodOpenAccount = "open_account"
	methodTransfer    = "transfer"
)

// Charge says whom to charge, how much, and for what.
type Charge struct {
	Order    OrderID
	Customer CustomerID
	// Amount is in the minor unit of the currency, above zero.
	Amount   int64
	Currency string // an ISO 4217 code in capitals
	// Token is what the processor takes the money from; empty means what the customer has on file.
	Token string
	// AuthorizeOnly holds the amount until it is captured, canceled or expired.
	AuthorizeOnly bool
	Metadata      map[string]string
}

// Charge charges a customer, once for each key of a caller. A repetition with equal content gets the payment of the
// first call as it was then, whatever has become of it and of the customer since. A decline is an outcome, a payment
// that FAILED.
//
// It returns ErrCurrencyUnknown, ErrIdempotencyKeyReused, ErrCustomerNotFound, ErrCustomerInactive,
// ErrUpstreamUnavailable, ErrInFlight, ErrProcessorUnavailable, ledger.ErrBalanceOverflow, and the errors of the
// store; then no money has moved, unless the error says that it is not known.
func (s *Service) Charge(ctx context.Context, caller, key string, c Charge) (Outcome, error) {
	currency, err := ParseCurrency(c.Currency)
	if err != nil {
		return Outcome{}, err
	}
	if c.Amount <= 0 {
		return Outcome{}, fmt.Errorf("a charge of %d moves nothing", c.Amount) // the contract has refused it
	}
	claim := Claim{Key{caller, methodCharge, key}, c.digest()}
	if err := s.mayPay(ctx, c.Customer); err != nil {
		// The key comes before the customer: a charge that was made stays made when its customer is locked or nobody can say
		// who that is.
		return s.first(ctx, claim, err)
	}
	p := Payment{
		ID: ID(s.newID()), Order: c.Order, Customer: c.Customer, Amount: c.Amount, Currency: currency,
		Metadata: cloneMetadata(c.Metadata),
	}
	op := Operation{
		Key: operationKey(claim.Key), Kind: OpCharge, Payment: p.ID, Token: c.Token, Amount: c.Amount, Currency: currency,
	}
	if c.AuthorizeOnly {
		op.Kind = OpAuthorize
	}
	return s.perform(ctx, change{
		claim: claim, op: op,
		needs: Needs{Accounts: []ledger.Key{p.CustomerAccount(), p.MerchantAccount()}},
		begin: func(w *Work) (Payment, error) { return s.beginCharge(w, p) },
		settle: func(w *Work, decline Decline) (Payment, error) {
			return s.charge(w, p, op, decline)
		},
	})
}

// mayPay returns why the customer may not be charged, nil where they may.
func (s *Service) mayPay(ctx context.Context, id CustomerID) error {
	customer, err := s.customers.Get(ctx, id)
	if err != nil {
		return err
	}
	if !customer.Active || customer.Role == "" {
		return ErrCustomerInactive.With("customer_id", string(id))
	}
	return nil
}

// first returns the first outcome of the claim, or err where there is none.
func (s *Service) first(ctx context.Context, claim Claim, err error) (Outcome, error) {
	if ctx.Err() != nil {
		return Outcome{}, err
	}
	outcome, found, lookupErr := s.store.Lookup(ctx, claim)
	switch {
	case lookupErr != nil:
		return Outcome{}, lookupErr
	case !found:
		return Outcome{}, err
	}
	outcome.Replayed = true
	return outcome, nil
}

// charge makes a payment by what an immediate processor has said.
func (s *Service) charge(w *Work, p Payment, op Operation, decline Decline) (Payment, error) {
	if decline == NotDeclined {
		paid, err := s.pay(w, p, op)
		if !errors.Is(err, ledger.ErrOverdrawn) {
			return paid, err
		}
		decline = InsufficientFunds
	}
	p.State, p.Decline = StateFailed, decline
	return w.Put(p, TransactionFailed, p.Amount), nil
}

// pay moves or holds the money of a new payment.
func (s *Service) pay(w *Work, p Payment, op Operation) (Payment, error) {
	if op.Kind == OpAuthorize {
		if err := s.hold(w, &p); err != nil {
			return Payment{}, err
		}
		p.Capturable = p.Amount
		p.State = p.stateOf()
		return w.Put(p, TransactionAuthorized, p.Amount), nil
	}
	if _, err := w.Book.Move(legs(w, &p, p.Amount), note(w, &p)); err != nil {
		return Payment{}, err
	}
	p.Captured = p.Amount
	p.State = p.stateOf()
	return w.Put(p, TransactionCharged, p.Amount), nil
}

// beginCharge makes the payment that a remote processor is about to be asked for. It holds the amount, so that what is
// approved can be written down; where that cannot be held, nobody is asked.
func (s *Service) beginCharge(w *Work, p Payment) (Payment, error) {
	err := s.hold(w, &p)
	if errors.Is(err, ledger.ErrOverdrawn) {
		p.State, p.Decline, p.ExpiresAt = StateFailed, InsufficientFunds, zeroTime
		return w.Put(p, TransactionFailed, p.Amount), nil
	}
	if err != nil {
		return Payment{}, err
	}
	p.State, p.Busy = StateProcessing, true
	return w.Put(p, TransactionProcessing, p.Amount), nil
}

// settleCharge writes down what a remote processor has said of the payment that beginCharge has made.
func (s *Service) settleCharge(w *Work, p Payment, op Operation, decline Decline) (Payment, error) {
	p.Busy = false
	switch {
	case decline != NotDeclined:
		if _, err := w.Book.Void(p.Hold, note(w, &p)); err != nil {
			return Payment{}, err
		}
		p.State, p.Decline, p.ExpiresAt = StateFailed, decline, zeroTime
		return w.Put(p, TransactionFailed, p.Amount), nil
	case op.Kind == OpAuthorize:
		p.Capturable = p.Amount
		p.State = p.stateOf()
		return w.Put(p, TransactionAuthorized, p.Amount), nil
	}
	if _, err := w.Book.Post(p.Hold, 0, note(w, &p)); err != nil {
		return Payment{}, err
	}
	p.Captured, p.ExpiresAt = p.Amount, zeroTime
	p.State = p.stateOf()
	return w.Put(p, TransactionCharged, p.Amount), nil
}

// hold holds the amount of a payment.
func (s *Service) hold(w *Work, p *Payment) error {
	expires := w.Now().Add(s.expiry)
	t, err := w.Book.Hold(legs(w, p, p.Amount), expires, note(w, p))
	if err != nil {
		return err
	}
	p.Hold, p.ExpiresAt = t.Number, expires
	return nil
}

// legs returns what takes amount from the customer of p and gives it to the merchant; below zero it gives it back.
func legs(w *Work, p *Payment, amount int64) []ledger.Leg {
	return []ledger.Leg{
		{Account: w.Account(p.CustomerAccount()).Number, Amount: -amount},
		{Account: w.Account(p.MerchantAccount()).Number, Amount: amount},
	}
}

func note(w *Work, p *Payment) ledger.Note { return ledger.Note{Reference: string(p.ID), At: w.Now()} }

// operationKey returns the key by which a processor knows the operation of a claim: the same for ever, and nothing
// that tells of the caller.
func operationKey(k Key) string {
	h := sha256.New()
	for _, text := range []string{"payments.v1/operation", k.Caller, k.Method, k.Key} {
		writeText(h, text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// digest returns the SHA-256 of the content in one fixed form: the fields in this order, each with its length before
// it, metadata sorted by key. It is kept for as long as keys are, so its form never changes.
func (c Charge) digest() Digest {
	h := sha256.New()
	writeText(h, "payments.v1/charge")
	writeText(h, string(c.Order))
	writeNumber(h, uint64(c.Amount))
	writeText(h, c.Currency)
	writeText(h, string(c.Customer))
	writeText(h, c.Token)
	writeBool(h, c.AuthorizeOnly)
	writeMetadata(h, c.Metadata)
	return Digest(h.Sum(nil))
}

func writeMetadata(h hash.Hash, m map[string]string) {
	writeNumber(h, uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		writeText(h, k)
		writeText(h, m[k])
	}
}

func writeText(h hash.Hash, s string) {
	writeNumber(h, uint64(len(s)))
	h.Write([]byte(s))
}

func writeNumber(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

func writeBool(h hash.Hash, b bool) {
	if b {
		writeNumber(h, 1)
		return
	}
	writeNumber(h, 0)
}

// cloneMetadata returns a copy that the caller cannot change any more, and nil for an empty map: as a store returns it.
func cloneMetadata(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
