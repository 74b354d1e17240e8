package payments_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/memstore"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	ann payments.CustomerID = "0197a000-0000-7000-8000-00000000000a"
	bob payments.CustomerID = "0197a000-0000-7000-8000-00000000000b"
)

const week = 7 * 24 * time.Hour

// directory is the customers that there are.
type directory struct {
	inactive map[payments.CustomerID]bool // by id of those who are there
	fail     error
	asked    int
}

func (d *directory) Get(_ context.Context, id payments.CustomerID) (payments.Customer, error) {
	d.asked++
	if d.fail != nil {
		return payments.Customer{}, d.fail
	}
	inactive, ok := d.inactive[id]
	if !ok {
		return payments.Customer{}, payments.ErrCustomerNotFound.With("customer_id", string(id))
	}
	return payments.Customer{ID: id, Active: !inactive, Role: payments.RoleMember}, nil
}

// processor answers what it is told to, and writes down what it did, once for each key.
type processor struct {
	mu      sync.Mutex
	remote  bool
	decline payments.Decline
	fail    error
	before  func() // what happens before it answers
	did     map[string]payments.Operation
	asked   int
}

func (p *processor) Immediate(payments.Operation) bool { return !p.remote }

func (p *processor) Process(ctx context.Context, op payments.Operation) (payments.Decline, error) {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	p.did[op.Key] = op
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return p.decline, p.fail
}

// world is a service with all that is around it.
type world struct {
	*payments.Service
	store     *memstore.Store
	customers *directory
	processor *processor
	clock     *clocktest.Manual
}

// start is the time of the tests; it has more digits than are kept.
func start() time.Time {
	return time.Date(2026, 1, 2, 4, 4, 5, 678901234, time.FixedZone("CET", 3600))
}

func newWorld(t interface{ Fatal(...any) }) *world {
	made := 0
	newID := func() string { made++; return fmt.Sprint("id-", made) }
	c := clocktest.New(start())
	w := &world{
		store: memstore.New(c, newID), clock: c, processor: &processor{did: map[string]payments.Operation{}},
		customers: &directory{inactive: map[payments.CustomerID]bool{ann: false, bob: false}},
	}
	var err error
	w.Service, err = payments.NewService(payments.Deps{
		Store: w.store, Customers: w.customers, Processor: w.processor, Clock: c, NewID: newID, AuthorizationExpiry: week,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func charge() payments.Charge {
	return payments.Charge{Order: "X1", Customer: ann, Amount: 150, Currency: "EUR", Metadata: map[string]string{"cart": "7"}}
}

func authorize() payments.Charge {
	c := charge()
	c.AuthorizeOnly = true
	return c
}

// must returns the payment of an outcome that is no error.
func must(t *testing.T) func(payments.Outcome, error) payments.Payment {
	return func(o payments.Outcome, err error) payments.Payment {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return o.Payment
	}
}

// balance returns what an account has and holds.
func (w *world) balance(t *testing.T, key ledger.Key) (balance, held int64) {
	t.Helper()
	accounts, err := w.store.Accounts(t.Context(), key.Owner, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if a.Key == key {
			return a.Balance, a.Held
		}
	}
	return 0, 0
}

func (w *world) wantBalances(t *testing.T, customer, held, merchant int64) {
	t.Helper()
	has, holds := w.balance(t, payments.CustomerAccount(ann, "EUR"))
	took, _ := w.balance(t, payments.MerchantAccount("EUR"))
	if has != customer || holds != held || took != merchant {
		t.Errorf("the customer has %d and holds %d, the merchant has %d; want %d, %d, %d", has, holds, took, customer, held, merchant)
	}
	if proof, err := w.store.Verify(t.Context()); err != nil || len(proof.Findings) > 0 {
		t.Errorf("the books: %v, %v", proof.Findings, err)
	}
}

func TestNewServiceNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := payments.NewService(payments.Deps{})
	for _, name := range []string{"Store", "Customers", "Processor", "Clock", "NewID", "AuthorizationExpiry"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	full := payments.Deps{
		Store: &memstore.Store{}, Customers: &directory{}, Processor: &processor{}, Clock: clock.System(),
		NewID: func() string { return "" }, AuthorizationExpiry: 1,
	}
	if _, err := payments.NewService(full); err != nil {
		t.Error(err)
	}
}

func TestAChargeMovesTheMoneyFromTheCustomerToTheMerchant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := charge()
	got, err := w.Charge(t.Context(), "user:ann", "k", c)
	if err != nil {
		t.Fatal(err)
	}
	c.Metadata["cart"] = "changed by the caller"
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	want := payments.Payment{
		Number: 1, ID: got.Payment.ID, Order: "X1", Customer: ann, Amount: 150, Currency: "EUR", State: payments.StateCaptured,
		Captured: 150, Metadata: map[string]string{"cart": "7"}, CreatedAt: at, UpdatedAt: at,
	}
	if !reflect.DeepEqual(got, payments.Outcome{Payment: want}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if kept, err := w.Get(t.Context(), payments.Everyone(), want.ID); err != nil || !reflect.DeepEqual(kept, want) {
		t.Errorf("kept %+v, %v", kept, err)
	}
	w.wantBalances(t, -150, 0, 150)
}

func TestARepetitionGetsTheFirstPaymentWhateverHasBecomeOfIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, *world, payments.ID){
		"nothing has":                        func(*testing.T, *world, payments.ID) {},
		"the customer was locked":            func(_ *testing.T, w *world, _ payments.ID) { w.customers.inactive[ann] = true },
		"the customer is gone":               func(_ *testing.T, w *world, _ payments.ID) { delete(w.customers.inactive, ann) },
		"the directory does not answer":      func(_ *testing.T, w *world, _ payments.ID) { w.customers.fail = payments.ErrUpstreamUnavailable },
		"the directory is broken altogether": func(_ *testing.T, w *world, _ payments.ID) { w.customers.fail = errors.New("broken") },
		"it was given back": func(t *testing.T, w *world, id payments.ID) {
			w.clock.Advance(time.Hour)
			must(t)(w.Refund(t.Context(), "service:orders", "r", payments.Everyone(), id, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := must(t)(w.Charge(t.Context(), "user:ann", "k", charge()))
			change(t, w, first.ID)
			again, err := w.Charge(t.Context(), "user:ann", "k", charge())
			if err != nil || !again.Replayed || !reflect.DeepEqual(again.Payment, first) {
				t.Errorf("got %+v, %v; want %+v replayed", again, err, first)
			}
		})
	}
}

func TestARefusedChargeMovesNoMoneyAndTheKeyIsGoodOnceTheCauseIsGone(t *testing.T) {
	t.Parallel()
	unreachable := errors.New("unreachable")
	for name, c := range map[string]struct {
		change func(*payments.Charge, *world)
		want   error
	}{
		"the currency is unknown":       {func(c *payments.Charge, _ *world) { c.Currency = "ZZZ" }, payments.ErrCurrencyUnknown},
		"the customer is unknown":       {func(c *payments.Charge, _ *world) { c.Customer = "nobody" }, payments.ErrCustomerNotFound},
		"the customer is inactive":      {func(_ *payments.Charge, w *world) { w.customers.inactive[ann] = true }, payments.ErrCustomerInactive},
		"the directory does not answer": {func(_ *payments.Charge, w *world) { w.customers.fail = payments.ErrUpstreamUnavailable }, payments.ErrUpstreamUnavailable},
		"the processor does not":        {func(_ *payments.Charge, w *world) { w.processor.fail = unreachable }, payments.ErrProcessorUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			asked := charge()
			c.change(&asked, w)
			if _, err := w.Charge(t.Context(), "user:ann", "k", asked); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			w.wantBalances(t, 0, 0, 0)
			w.processor.fail, w.customers.fail, w.customers.inactive[ann] = nil, nil, false
			if r, err := w.Charge(t.Context(), "user:ann", "k", charge()); err != nil || r.Replayed {
				t.Errorf("the charge after it: %+v, %v", r, err)
			}
		})
	}
}

func TestADeclineIsAnAnswerThatIsFinal(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		w := newWorld(t)
		w.processor.remote, w.processor.decline = remote, payments.ExpiredCard
		first := must(t)(w.Charge(t.Context(), "user:ann", "k", charge()))
		if first.State != payments.StateFailed || first.Decline != payments.ExpiredCard || first.Captured != 0 || first.Busy {
			t.Errorf("remote %v: %+v", remote, first)
		}
		w.processor.decline = payments.NotDeclined
		again, err := w.Charge(t.Context(), "user:ann", "k", charge())
		if err != nil || !again.Replayed || !reflect.DeepEqual(again.Payment, first) {
			t.Errorf("remote %v, again: %+v, %v", remote, again, err)
		}
		w.wantBalances(t, 0, 0, 0)
		if _, err := w.Refund(t.Context(), "user:ann", "r", payments.Everyone(), first.ID, 0); !errors.Is(err, ledger.ErrStateConflict) {
			t.Errorf("remote %v, a refund of it: %v", remote, err)
		}
	}
}

func TestAWalletWithoutEnoughIsDeclined(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		w := newWorld(t)
		w.processor.remote = remote
		if _, err := w.OpenAccount(t.Context(), "service:bank", "o", payments.OpenAccount{
			Key: payments.CustomerAccount(ann, "EUR"), Limited: true, Limit: 149,
		}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []payments.Charge{charge(), authorize()} {
			p := must(t)(w.Charge(t.Context(), "user:ann", fmt.Sprint(c.AuthorizeOnly), c))
			if p.State != payments.StateFailed || p.Decline != payments.InsufficientFunds {
				t.Errorf("remote %v: %+v", remote, p)
			}
		}
		enough := charge()
		enough.Amount = 149
		if p := must(t)(w.Charge(t.Context(), "user:ann", "enough", enough)); p.State != payments.StateCaptured {
			t.Errorf("remote %v, with enough: %+v", remote, p)
		}
		w.wantBalances(t, -149, 0, 149)
	}
}

func TestTheSameKeyWithOtherContentIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*payments.Charge){
		"order":                   func(c *payments.Charge) { c.Order = "X2" },
		"amount":                  func(c *payments.Charge) { c.Amount++ },
		"currency":                func(c *payments.Charge) { c.Currency = "USD" },
		"customer":                func(c *payments.Charge) { c.Customer = bob },
		"token":                   func(c *payments.Charge) { c.Token = "tok_ok" },
		"authorized only":         func(c *payments.Charge) { c.AuthorizeOnly = true },
		"no metadata":             func(c *payments.Charge) { c.Metadata = nil },
		"a value":                 func(c *payments.Charge) { c.Metadata = map[string]string{"cart": "8"} },
		"a key":                   func(c *payments.Charge) { c.Metadata = map[string]string{"cars": "7"} },
		"one more":                func(c *payments.Charge) { c.Metadata["more"] = "" },
		"text that moves over":    func(c *payments.Charge) { c.Metadata = map[string]string{"cart7": ""} },
		"order that takes a part": func(c *payments.Charge) { c.Order = "X1\x00\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			must(t)(w.Charge(t.Context(), "user:ann", "k", charge()))
			other := charge()
			change(&other)
			if _, err := w.Charge(t.Context(), "user:ann", "k", other); !errors.Is(err, payments.ErrIdempotencyKeyReused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEqualKeysOfTwoCallersAndOfTwoMethodsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, caller := range []string{"user:ann", "service:orders"} {
		o, err := w.Charge(t.Context(), caller, "k", charge())
		if err != nil || o.Replayed {
			t.Errorf("%s: %+v, %v", caller, o, err)
		}
		if o, err = w.Refund(t.Context(), caller, "k", payments.Everyone(), o.Payment.ID, 50); err != nil || o.Replayed {
			t.Errorf("%s, refund: %+v, %v", caller, o, err)
		}
	}
	w.wantBalances(t, -200, 0, 200)
}

func TestAnAuthorizationIsCapturedInPartsAndTheRestReleased(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		w := newWorld(t)
		w.processor.remote = remote
		p := must(t)(w.Charge(t.Context(), "user:ann", "k", authorize()))
		if p.State != payments.StateAuthorized || p.Capturable != 150 || !p.ExpiresAt.Equal(p.CreatedAt.Add(week)) {
			t.Errorf("authorized: %+v", p)
		}
		w.wantBalances(t, 0, 150, 0)
		if _, err := w.Capture(t.Context(), "service:orders", "c", payments.Everyone(), p.ID, 151, false); !errors.Is(err, ledger.ErrAmountExceeded) {
			t.Errorf("too much: %v", err)
		}
		p = must(t)(w.Capture(t.Context(), "service:orders", "c", payments.Everyone(), p.ID, 60, false))
		if p.State != payments.StateCaptured || p.Captured != 60 || p.Capturable != 90 || p.ExpiresAt.IsZero() {
			t.Errorf("a part: %+v", p)
		}
		again, err := w.Capture(t.Context(), "service:orders", "c", payments.Everyone(), p.ID, 60, false)
		if err != nil || !again.Replayed || !reflect.DeepEqual(again.Payment, p) {
			t.Errorf("again: %+v, %v", again, err)
		}
		p = must(t)(w.Refund(t.Context(), "service:orders", "r", payments.Everyone(), p.ID, 20))
		if p.State != payments.StatePartiallyRefunded || p.Refunded != 20 {
			t.Errorf("given back: %+v", p)
		}
		p = must(t)(w.Capture(t.Context(), "service:orders", "d", payments.Everyone(), p.ID, 40, true))
		if p.Captured != 100 || p.Capturable != 0 || !p.ExpiresAt.IsZero() {
			t.Errorf("the last: %+v", p)
		}
		w.wantBalances(t, -80, 0, 80)
		for name, err := range map[string]error{
			"capture": second(w.Capture(t.Context(), "service:orders", "e", payments.Everyone(), p.ID, 0, false)),
			"cancel":  second(w.Cancel(t.Context(), "service:orders", "e", payments.Everyone(), p.ID)),
		} {
			if !errors.Is(err, ledger.ErrStateConflict) {
				t.Errorf("%s after it: %v", name, err)
			}
		}
		if _, err := w.Refund(t.Context(), "service:orders", "s", payments.Everyone(), p.ID, 81); !errors.Is(err, ledger.ErrAmountExceeded) {
			t.Errorf("more than there is: %v", err)
		}
		p = must(t)(w.Refund(t.Context(), "service:orders", "s", payments.Everyone(), p.ID, 0))
		if p.State != payments.StateRefunded || p.Refunded != 100 {
			t.Errorf("all: %+v", p)
		}
		w.wantBalances(t, 0, 0, 0)
		if remote && len(w.processor.did) != 5 {
			t.Errorf("the processor did %d things, want 5: %v", len(w.processor.did), w.processor.did)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestWhatIsNotCapturedIsReleasedByCancelOrByTime(t *testing.T) {
	t.Parallel()
	for _, captured := range []int64{0, 60} {
		for _, expires := range []bool{false, true} {
			w := newWorld(t)
			p := must(t)(w.Charge(t.Context(), "user:ann", "k", authorize()))
			if captured > 0 {
				p = must(t)(w.Capture(t.Context(), "service:orders", "c", payments.Everyone(), p.ID, captured, false))
			}
			if expires {
				w.clock.Advance(week - time.Second)
				if n, err := w.Release(t.Context()); n != 0 || err != nil {
					t.Errorf("too early: %d, %v", n, err)
				}
				w.clock.Advance(time.Second)
				if _, err := w.Capture(t.Context(), "service:orders", "late", payments.Everyone(), p.ID, 0, false); !errors.Is(err, ledger.ErrStateConflict) {
					t.Errorf("captured after its time: %v", err)
				}
				if n, err := w.Release(t.Context()); n != 1 || err != nil {
					t.Errorf("released %d, %v", n, err)
				}
				p, _ = w.Get(t.Context(), payments.Everyone(), p.ID)
			} else {
				p = must(t)(w.Cancel(t.Context(), "user:ann", "x", payments.Only(ann), p.ID))
			}
			want := payments.StateCanceled
			if captured > 0 {
				want = payments.StateCaptured
			}
			if p.State != want || p.Capturable != 0 || !p.ExpiresAt.IsZero() {
				t.Errorf("expires %v, captured %d: %+v", expires, captured, p)
			}
			w.wantBalances(t, -captured, 0, captured)
		}
	}
}

func TestPendingTransfersOfOthersExpireAsWell(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := open(t, w, "a")
	b := open(t, w, "b")
	o, err := w.Transfer(t.Context(), "service:bank", "t", []payments.TransferOperation{{
		Kind: ledger.Pending, Legs: []payments.TransferLeg{{Account: a.ID, Amount: -5}, {Account: b.ID, Amount: 5}}, ExpiresIn: time.Minute,
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Minute)
	if n, err := w.Release(t.Context()); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	if _, held := w.balance(t, a.Key); held != 0 {
		t.Errorf("%d is held", held)
	}
	_, err = w.Transfer(t.Context(), "service:bank", "u", []payments.TransferOperation{{Kind: ledger.Post, Of: o.Transfers[0].Number}}, nil)
	if !errors.Is(err, ledger.ErrStateConflict) {
		t.Errorf("posted after its time: %v", err)
	}
}

func open(t *testing.T, w *world, owner string) ledger.Account {
	t.Helper()
	o, err := w.OpenAccount(t.Context(), "service:bank", "open "+owner, payments.OpenAccount{
		Key: ledger.Key{Owner: owner, Kind: ledger.General, Currency: "EUR"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.Account
}

func TestOperationsOfOneTransferHappenAllOrNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := open(t, w, "a"), open(t, w, "b")
	move := func(amount int64) payments.TransferOperation {
		return payments.TransferOperation{Kind: ledger.Move, Legs: []payments.TransferLeg{{Account: a.ID, Amount: -amount}, {Account: b.ID, Amount: amount}}}
	}
	bad := move(1)
	bad.Legs[1].Amount = 2
	_, err := w.Transfer(t.Context(), "service:bank", "t", []payments.TransferOperation{move(3), bad}, nil)
	f, _ := fault.As(err)
	if !errors.Is(err, ledger.ErrUnbalanced) || f.Violations()[0].Field != "operations[1].move" {
		t.Errorf("got %v, %v", err, f.Violations())
	}
	if has, _ := w.balance(t, a.Key); has != 0 {
		t.Errorf("a has %d", has)
	}
	o, err := w.Transfer(t.Context(), "service:bank", "t", []payments.TransferOperation{move(3), move(4)}, map[string]string{"why": "x"})
	if err != nil || o.Replayed || len(o.Transfers) != 2 || o.Transfers[1].Number != o.Transfers[0].Number+1 {
		t.Errorf("got %+v, %v", o, err)
	}
	if has, _ := w.balance(t, a.Key); has != -7 {
		t.Errorf("a has %d", has)
	}
}

func TestTransfersOfPaymentsAreForPaymentsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := must(t)(w.Charge(t.Context(), "user:ann", "k", authorize()))
	must(t)(w.Charge(t.Context(), "user:ann", "l", charge()))
	for _, o := range []payments.TransferOperation{
		{Kind: ledger.Post, Of: p.Hold}, {Kind: ledger.Void, Of: p.Hold}, {Kind: ledger.Reversal, Of: 2},
	} {
		_, err := w.Transfer(t.Context(), "service:bank", "t", []payments.TransferOperation{o}, nil)
		if f, _ := fault.As(err); !errors.Is(err, ledger.ErrStateConflict) || f.Metadata()["state"] != "PAYMENT" {
			t.Errorf("%s: %v", o.Kind, err)
		}
	}
	w.wantBalances(t, -150, 150, 150)
}

func TestAPaymentIsShownToThoseWhoMaySeeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := must(t)(w.Charge(t.Context(), "user:ann", "k", authorize()))
	for name, c := range map[string]struct {
		viewer payments.Viewer
		want   error
	}{
		"its customer":                  {payments.Only(ann), nil},
		"a service or an administrator": {payments.Everyone(), nil},
		"a stranger":                    {payments.Only(bob), payments.ErrPaymentNotFound},
		"nobody":                        {payments.Viewer{}, payments.ErrPaymentNotFound},
		"a user without an id":          {payments.Only(""), payments.ErrPaymentNotFound},
	} {
		got, err := w.Get(t.Context(), c.viewer, p.ID)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && !reflect.DeepEqual(got, p) || err != nil && !reflect.DeepEqual(got, payments.Payment{}) {
			t.Errorf("%s got %+v", name, got)
		}
		if c.want != nil {
			if _, err := w.Cancel(t.Context(), "user:eve", "k", c.viewer, p.ID); !errors.Is(err, c.want) {
				t.Errorf("%s cancels: %v", name, err)
			}
		}
	}
	_, missing := w.Get(t.Context(), payments.Everyone(), "missing")
	_, strange := w.Get(t.Context(), payments.Only(bob), p.ID)
	if !reflect.DeepEqual(missing, strange) {
		t.Errorf("a stranger's answer %#v is not that for a missing one %#v", strange, missing)
	}
	if payments.Only("").Sees(payments.Payment{}) || (payments.Viewer{}).Sees(payments.Payment{}) {
		t.Error("a payment without a customer is seen by nobody")
	}
}

func TestAPageHasAsManyPaymentsAsWereAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 1001 {
		must(t)(w.Charge(t.Context(), "user:ann", fmt.Sprint(i), charge()))
	}
	for name, c := range map[string]struct {
		limit, want int
		more        bool
	}{
		"no size is 50":                    {0, 50, true},
		"one":                              {1, 1, true},
		"the largest":                      {1000, 1000, true},
		"more than the largest is the one": {5000, 1000, true},
	} {
		page, err := w.List(t.Context(), payments.Query{Limit: c.limit})
		if err != nil || len(page.Payments) != c.want || page.More != c.more {
			t.Errorf("%s: %d payments, more: %v, %v", name, len(page.Payments), page.More, err)
		}
	}
	last, err := w.List(t.Context(), payments.Query{Limit: 1000, Before: 1001})
	if err != nil || len(last.Payments) != 1000 || last.More || last.Payments[0].Number != 1000 {
		t.Errorf("the rest: %d payments, more: %v, %v", len(last.Payments), last.More, err)
	}
}
