package payments

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// methodCharge is the scope of the keys of charges. Every way to charge shares it, so that a charge that was asked for
// over one way and repeated over another is made once.
const methodCharge = "charge"

// Digest is what binds a key to the content that it was used for.
type Digest [sha256.Size]byte

// Claim is a key that makes a repeated call the same call, with the content that it stands for.
type Claim struct {
	Caller string // whose key it is; equal keys of different callers have nothing to do with each other
	Method string // the kind of call
	Key    string // what the caller made up
	Digest Digest
}

// Check returns ErrIdempotencyKeyReused if first, the digest that the key was claimed with, is of other content.
func (c Claim) Check(first Digest) error {
	if c.Digest != first {
		return ErrIdempotencyKeyReused
	}
	return nil
}

// Charge says whom to charge, how much, and for what.
type Charge struct {
	Order    OrderID
	Customer CustomerID
	// Amount is in the minor unit of the currency, above zero.
	Amount   int64
	Currency string // an ISO 4217 code in capitals
	Metadata map[string]string
}

// Receipt is the payment that a charge has led to.
type Receipt struct {
	Payment Payment
	// Replayed says that the payment was made by an earlier call.
	Replayed bool
}

// Charge charges a customer, once for each key of a caller. A repetition with equal content gets the payment of the
// first call, whatever has become of the customer since.
//
// It returns ErrCurrencyUnknown, ErrIdempotencyKeyReused, ErrCustomerNotFound, ErrCustomerInactive, ErrUpstreamUnavailable,
// ErrBalanceOverflow, and the errors of the store; then no money has moved, unless the store says that it does not know.
func (s *Service) Charge(ctx context.Context, caller, key string, c Charge) (Receipt, error) {
	currency, err := ParseCurrency(c.Currency)
	if err != nil {
		return Receipt{}, err
	}
	claim := Claim{Caller: caller, Method: methodCharge, Key: key, Digest: c.digest()}

	// The key comes before the customer: a charge that was made stays made when its customer is locked or nobody can say
	// who that is. This look decides nothing else: whether the key is free is decided by the store as it writes.
	first, found, err := s.store.Lookup(ctx, claim)
	if err != nil {
		return Receipt{}, err
	}
	if found {
		return Receipt{Payment: first, Replayed: true}, nil
	}

	customer, err := s.customers.Get(ctx, c.Customer)
	if err != nil {
		return Receipt{}, err
	}
	if !customer.Active || customer.Role == "" {
		return Receipt{}, ErrCustomerInactive.With("customer_id", string(c.Customer))
	}

	posting := capture(Payment{
		ID:        ID(s.newID()),
		Order:     c.Order,
		Customer:  c.Customer,
		Amount:    c.Amount,
		Currency:  currency,
		State:     StateCaptured,
		Metadata:  cloneMetadata(c.Metadata),
		CreatedAt: s.now(),
	})
	if err := posting.Check(); err != nil {
		return Receipt{}, fmt.Errorf("charge: %w", err)
	}
	return s.store.Capture(ctx, claim, posting)
}

// digest returns the SHA-256 of the content in one fixed form: the fields in this order, each with its length before it,
// metadata sorted by key. It is kept for as long as keys are, so its form never changes.
func (c Charge) digest() Digest {
	h := sha256.New()
	writeText(h, "payments.v1/charge")
	writeText(h, string(c.Order))
	writeNumber(h, uint64(c.Amount))
	writeText(h, c.Currency)
	writeText(h, string(c.Customer))
	writeNumber(h, uint64(len(c.Metadata)))
	for _, k := range slices.Sorted(maps.Keys(c.Metadata)) {
		writeText(h, k)
		writeText(h, c.Metadata[k])
	}
	return Digest(h.Sum(nil))
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

// cloneMetadata returns a copy that the caller cannot change any more, and nil for an empty map: as a store returns it.
func cloneMetadata(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
