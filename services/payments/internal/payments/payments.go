// Package payments is what is true about money here: a customer is charged once for each key, every payment stands on two
// entries that sum to zero, and a balance never leaves the range of an int64.
//
// What is promised: Charge answers a repetition with the first result, also while the customer is locked or the
// customer directory is down. What is not: a charge that ended with an error has left nothing behind, so the same key
// may be used for it again.
//
// The package does not know how it is reached or where payments are kept: see Store and Customers for what it needs.
package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
)

// How many payments a page has.
const (
	DefaultPageSize = 50
	MaxPageSize     = 1000
)

// Store keeps payments, the ledger behind them and the keys they were made with. It is safe for concurrent use; calls of
// Capture that come at the same time may be written together. Implementations pass storetest.Run.
//
// Beside what each method says, the methods return the error of ctx, and faults of the storage itself.
type Store interface {
	// Lookup returns the payment that was made with the key of the claim, and whether there is one. It returns
	// ErrIdempotencyKeyReused if the key was used for other content.
	Lookup(ctx context.Context, claim Claim) (Payment, bool, error)

	// Capture claims the key and writes payment, entries, balances and the event in one transaction: all or nothing. Where
	// the key is claimed already it writes nothing and returns the first payment with Replayed set. Of calls with equal
	// claims at the same time one writes and the others replay.
	//
	// It returns ErrIdempotencyKeyReused if the key was used for other content, ErrBalanceOverflow if an account cannot
	// take its entry, and an error if the posting is not balanced; then nothing was written.
	Capture(ctx context.Context, claim Claim, posting Posting) (Receipt, error)

	// Get returns a payment. It returns ErrPaymentNotFound if there is none.
	Get(ctx context.Context, id ID) (Payment, error)

	// List returns the payments that match, newest first: in the reverse of the order in which they were written. It
	// returns ErrPageTokenInvalid if there is no payment query.After.
	List(ctx context.Context, query Query) ([]Payment, error)

	// Watch begins to follow the transactions of one customer, or of all where customer is empty: after the resume token,
	// or from now on where that is empty. A token is good for the same customer only. It returns faults of the event log
	// for a token that is not one or too old.
	Watch(ctx context.Context, customer CustomerID, token string) (Feed, error)
}

// Feed is a place in the order in which transactions were written. Next is for one goroutine. It must be closed.
type Feed interface {
	// Next waits for the next transaction and returns it with the token to resume right after it. It returns the error of
	// ctx, and may then be called again without losing anything; and faults of the event log, with the place to resume
	// from, when no more comes.
	Next(ctx context.Context) (Transaction, string, error)
	// Position returns the token of the place up to which Next has returned everything.
	Position() string
	// Close ends the feed.
	Close()
}

// Customers says who may be charged. It is safe for concurrent use.
type Customers interface {
	// Get returns a customer. It returns ErrCustomerNotFound if there is none, ErrUpstreamUnavailable if that cannot be
	// said now, and the error of ctx.
	Get(ctx context.Context, id CustomerID) (Customer, error)
}

// Customer is what a charge needs to know of the person who pays.
type Customer struct {
	ID     CustomerID
	Active bool // whether they may act now
	Role   Role
}

// Role is what a customer is. Only those whose role is known here are charged: a role that auth learns later may be one of
// somebody who does not pay.
type Role string

// The roles.
const (
	RoleMember Role = "MEMBER"
	RoleAdmin  Role = "ADMIN"
)

// Deps is what a Service is made of. All fields are required.
type Deps struct {
	Store     Store
	Customers Customers
	Clock     clock.Clock
	// NewID returns a new UUIDv7 in its canonical form. It is safe for concurrent use.
	NewID func() string
}

// Service charges customers and shows payments. It is safe for concurrent use. Make it with NewService.
type Service struct {
	store     Store
	customers Customers
	clock     clock.Clock
	newID     func() string
}

// NewService returns a Service, or an error that names what is missing.
func NewService(deps Deps) (*Service, error) {
	var problems []error
	for _, d := range []struct {
		name    string
		missing bool
	}{
		{"Store", deps.Store == nil},
		{"Customers", deps.Customers == nil},
		{"Clock", deps.Clock == nil},
		{"NewID", deps.NewID == nil},
	} {
		if d.missing {
			problems = append(problems, fmt.Errorf("payments: %s is missing", d.name))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &Service{store: deps.Store, customers: deps.Customers, clock: deps.Clock, newID: deps.NewID}, nil
}

// Viewer is on whose behalf a payment is looked at. The zero value sees nothing.
type Viewer struct {
	customer CustomerID
	all      bool
}

// Everyone returns the viewer who sees every payment: a service, or an administrator of payments.
func Everyone() Viewer { return Viewer{all: true} }

// Only returns the viewer who sees the payments of one customer. Of an empty id it is one who sees nothing.
func Only(customer CustomerID) Viewer { return Viewer{customer: customer} }

// Sees says whether p may be shown.
func (v Viewer) Sees(p Payment) bool {
	return v.all || v.customer != "" && v.customer == p.Customer
}

// Get returns a payment. It returns ErrPaymentNotFound if there is none or the viewer may not see it: the two cannot be
// told apart.
func (s *Service) Get(ctx context.Context, viewer Viewer, id ID) (Payment, error) {
	p, err := s.store.Get(ctx, id)
	if err != nil {
		return Payment{}, err
	}
	if !viewer.Sees(p) {
		return Payment{}, ErrPaymentNotFound
	}
	return p, nil
}

// Query says which payments to list.
type Query struct {
	// Customer is whose payments to list. Empty means everybody's: whether the caller may ask for that was decided before.
	Customer CustomerID
	// After is the last payment of the page before. Empty means the first page.
	After ID
	// Limit is the most payments to return. Zero means DefaultPageSize; more than MaxPageSize means MaxPageSize.
	Limit int
}

// Page is a part of a list.
type Page struct {
	Payments []Payment
	// More says that there are payments after the last of this page.
	More bool
}

// List returns payments, newest first. It returns ErrPageTokenInvalid if there is no payment query.After.
func (s *Service) List(ctx context.Context, query Query) (Page, error) {
	if query.Limit <= 0 {
		query.Limit = DefaultPageSize
	}
	limit := min(query.Limit, MaxPageSize)
	query.Limit = limit + 1 // one more says whether there is a next page
	found, err := s.store.List(ctx, query)
	if err != nil {
		return Page{}, err
	}
	if len(found) > limit {
		return Page{Payments: found[:limit], More: true}, nil
	}
	return Page{Payments: found}, nil
}

// Watch begins to follow the transactions of one customer, or of all where customer is empty: whether the caller may ask
// for that was decided before. See Store for the tokens and the errors.
func (s *Service) Watch(ctx context.Context, customer CustomerID, token string) (Feed, error) {
	return s.store.Watch(ctx, customer, token)
}

// now returns the time to write down: as fine as a store keeps it, so that the first answer and a replay are equal.
func (s *Service) now() time.Time { return s.clock.Now().UTC().Truncate(time.Microsecond) }

// PolicyDomain is the domain of the faults whose reason is not of this service alone but of every request path.
const PolicyDomain = "policy.v1"

// The faults of this package.
var (
	// ErrPaymentNotFound: there is no such payment, or the viewer may not know that there is.
	ErrPaymentNotFound = fault.New(fault.NotFound, "PAYMENT_NOT_FOUND", "no such payment")
	// ErrCustomerNotFound: there is no such customer. Metadata: customer_id.
	ErrCustomerNotFound = fault.New(fault.NotFound, "CUSTOMER_NOT_FOUND", "no such customer")
	// ErrCustomerInactive: the customer may not act. Metadata: customer_id.
	ErrCustomerInactive = fault.New(fault.FailedPrecondition, "CUSTOMER_INACTIVE",
		"the customer is locked or deactivated")
	// ErrIdempotencyKeyReused: the key was used for a charge with other content.
	ErrIdempotencyKeyReused = fault.New(fault.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED",
		"the idempotency key was used for another charge")
	// ErrCurrencyUnknown: the currency is not an active ISO 4217 code with a minor unit. It has a violation on currency.
	ErrCurrencyUnknown = fault.New(fault.InvalidArgument, "CURRENCY_UNKNOWN", "unknown currency").
				WithViolation("currency", "currency.iso4217", "must be an active ISO 4217 code with a minor unit")
	// ErrBalanceOverflow: an account's balance would leave the range of an int64.
	ErrBalanceOverflow = fault.New(fault.FailedPrecondition, "BALANCE_OVERFLOW",
		"the charge would take a balance out of range")
	// ErrUpstreamUnavailable: the customer directory does not answer. Metadata: upstream.
	ErrUpstreamUnavailable = fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE",
		"another service that the call needs does not answer").
		WithDomain(PolicyDomain).With("upstream", "auth")
	// ErrPageTokenInvalid: the page token was not given out for this list. It has a violation on page_token.
	ErrPageTokenInvalid = fault.New(fault.InvalidArgument, "PAGE_TOKEN_INVALID", "the page token is not valid").
				WithDomain(PolicyDomain).
				WithViolation("page_token", "page_token.valid", "must be a token that this method returned for the same list")
)

// Faults returns every fault of this package, for tests that hold them against the contract.
func Faults() []*fault.Fault {
	return []*fault.Fault{
		ErrPaymentNotFound,
		ErrCustomerNotFound,
		ErrCustomerInactive,
		ErrIdempotencyKeyReused,
		ErrCurrencyUnknown,
		ErrBalanceOverflow,
		ErrUpstreamUnavailable,
		ErrPageTokenInvalid,
	}
}
