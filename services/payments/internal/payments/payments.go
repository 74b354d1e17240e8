// Package payments is what is true about payments: a customer is charged once for each key, every change of a payment
// is a transfer of the ledger, and no more is captured than was authorized nor given back than was captured.
//
// What is promised: a repetition is answered with the first result, also while the customer is locked or the customer
// directory is down. A request that ended with an error has left nothing behind, and its key can be used again, unless
// the error says that it is not known what became of it: ErrProcessorUnavailable, ErrInFlight, and what the store says
// of an unknown outcome. The same key tells then.
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

// Role is what a customer is. Only those whose role is known here are charged: a role that auth learns later may be
// one of somebody who does not pay.
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
	Processor Processor
	Clock     clock.Clock
	// NewID returns a new UUIDv7 in its canonical form. It is safe for concurrent use.
	NewID func() string
	// AuthorizationExpiry is how long an authorization holds. Above zero.
	AuthorizationExpiry time.Duration
}

// Service charges customers, keeps the ledger, and shows both. It is safe for concurrent use. Make it with NewService.
type Service struct {
	store     Store
	customers Customers
	processor Processor
	clock     clock.Clock
	newID     func() string
	expiry    time.Duration
	asked     asked
	resting   resting
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
		{"Processor", deps.Processor == nil},
		{"Clock", deps.Clock == nil},
		{"NewID", deps.NewID == nil},
		{"AuthorizationExpiry", deps.AuthorizationExpiry <= 0},
	} {
		if d.missing {
			problems = append(problems, fmt.Errorf("payments: %s is missing", d.name))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &Service{
		store: deps.Store, customers: deps.Customers, processor: deps.Processor, clock: deps.Clock, newID: deps.NewID,
		expiry: deps.AuthorizationExpiry,
	}, nil
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
	p, err := s.store.Payment(ctx, id)
	if err != nil {
		return Payment{}, err
	}
	if !viewer.Sees(p) {
		return Payment{}, ErrPaymentNotFound
	}
	return p, nil
}

// List returns payments, newest first.
func (s *Service) List(ctx context.Context, query Query) (Page, error) {
	limit := pageSize(query.Limit)
	query.Limit = limit + 1 // one more says whether there is a next page
	found, err := s.store.Payments(ctx, query)
	if err != nil {
		return Page{}, err
	}
	if len(found) > limit {
		return Page{Payments: found[:limit], More: true}, nil
	}
	return Page{Payments: found}, nil
}

// Watch begins to follow the transactions of one customer, or of all where customer is empty: whether the caller may
// ask for that was decided before. See Store for the tokens and the errors.
func (s *Service) Watch(ctx context.Context, customer CustomerID, token string) (Feed, error) {
	return s.store.Watch(ctx, customer, token)
}

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
	// ErrIdempotencyKeyReused: the key was used for a request with other content.
	ErrIdempotencyKeyReused = fault.New(fault.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED",
		"the idempotency key was used for another request")
	// ErrCurrencyUnknown: the currency is not an active ISO 4217 code with a minor unit. It has a violation on currency.
	ErrCurrencyUnknown = fault.New(fault.InvalidArgument, "CURRENCY_UNKNOWN", "unknown currency").
				WithViolation("currency", "currency.iso4217", "must be an active ISO 4217 code with a minor unit")
	// ErrFilterInvalid: the filter of a list cannot be read. It has a violation on filter that says where.
	ErrFilterInvalid = fault.New(fault.InvalidArgument, "FILTER_INVALID", "the filter is not valid")
	// ErrInFlight: a command with the same key, or a change of the same payment, is at work.
	ErrInFlight = fault.New(fault.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT", "a request with the same key, or for the same payment, is at work").
			WithRetryAfter(200 * time.Millisecond)
	// ErrProcessorUnavailable: the processor has not said what became of the request.
	ErrProcessorUnavailable = fault.New(fault.Unavailable, "PROCESSOR_UNAVAILABLE",
		"the processor has not said what became of it: repeat the request with the same key")
	// ErrOverloaded: too many commands wait to be written.
	ErrOverloaded = fault.New(fault.ResourceExhausted, "OVERLOADED", "too many requests wait to be written").
			WithDomain(PolicyDomain).WithRetryAfter(100 * time.Millisecond)
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
		ErrFilterInvalid,
		ErrInFlight,
		ErrProcessorUnavailable,
		ErrOverloaded,
		ErrUpstreamUnavailable,
		ErrPageTokenInvalid,
	}
}
