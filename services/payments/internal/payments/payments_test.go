package payments

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
)

const (
	ann CustomerID = "0197a000-0000-7000-8000-00000000000a"
	bob CustomerID = "0197a000-0000-7000-8000-00000000000b"
)

// memory is a Store that keeps what it is given and writes down what it is asked.
type memory struct {
	calls    []string
	captured []Posting
	claims   map[Claim]Payment
	fail     error // what every call returns
	raced    *Payment
}

func (m *memory) Lookup(_ context.Context, c Claim) (Payment, bool, error) {
	m.calls = append(m.calls, "lookup")
	if m.fail != nil {
		return Payment{}, false, m.fail
	}
	for known := range m.claims {
		if known.Caller == c.Caller && known.Method == c.Method && known.Key == c.Key {
			if err := c.Check(known.Digest); err != nil {
				return Payment{}, false, err
			}
		}
	}
	p, ok := m.claims[c]
	return p, ok, nil
}

func (m *memory) Capture(_ context.Context, c Claim, p Posting) (Receipt, error) {
	m.calls = append(m.calls, "capture")
	if m.raced != nil {
		return Receipt{Payment: *m.raced, Replayed: true}, nil
	}
	m.captured = append(m.captured, p)
	m.claims[c] = p.Payment
	return Receipt{Payment: p.Payment}, nil
}

func (m *memory) Get(_ context.Context, id ID) (Payment, error) {
	for _, p := range m.captured {
		if p.Payment.ID == id {
			return p.Payment, nil
		}
	}
	return Payment{}, ErrPaymentNotFound
}

// List returns as many payments as are asked for.
func (m *memory) List(_ context.Context, q Query) ([]Payment, error) {
	m.calls = append(m.calls, fmt.Sprintf("list %d after %q", q.Limit, q.After))
	if m.fail != nil {
		return nil, m.fail
	}
	list := make([]Payment, 0, q.Limit)
	for i := range min(q.Limit, len(m.captured)) {
		list = append(list, m.captured[len(m.captured)-1-i].Payment)
	}
	return list, nil
}

func (m *memory) Watch(context.Context, CustomerID, string) (Feed, error) { return nil, m.fail }

// directory is the customers that there are.
type directory struct {
	store    *memory
	inactive map[CustomerID]bool // by id of those who are there
	fail     error
}

func (d *directory) Get(_ context.Context, id CustomerID) (Customer, error) {
	d.store.calls = append(d.store.calls, "customer")
	if d.fail != nil {
		return Customer{}, d.fail
	}
	inactive, ok := d.inactive[id]
	if !ok {
		return Customer{}, ErrCustomerNotFound.With("customer_id", string(id))
	}
	return Customer{ID: id, Active: !inactive, Role: RoleMember}, nil
}

// start is the time of the tests; it has more digits than are kept.
func start() time.Time {
	return time.Date(2026, 1, 2, 4, 4, 5, 678901234, time.FixedZone("CET", 3600))
}

func newService(t *testing.T) (*Service, *memory, *directory) {
	t.Helper()
	store := &memory{claims: map[Claim]Payment{}}
	customers := &directory{store: store, inactive: map[CustomerID]bool{ann: false, bob: false}}
	made := 0
	s, err := NewService(Deps{
		Store: store, Customers: customers, Clock: clocktest.New(start()),
		NewID: func() string { made++; return fmt.Sprintf("payment-%d", made) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, store, customers
}

func TestNewServiceNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := NewService(Deps{})
	for _, name := range []string{"Store", "Customers", "Clock", "NewID"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	full := Deps{Store: &memory{}, Customers: &directory{}, Clock: clock.System(), NewID: func() string { return "" }}
	if _, err := NewService(full); err != nil {
		t.Error(err)
	}
}

func charge() Charge {
	return Charge{Order: "X1", Customer: ann, Amount: 150, Currency: "EUR", Metadata: map[string]string{"cart": "7"}}
}

func TestAChargeMovesTheMoneyFromTheCustomerToTheMerchant(t *testing.T) {
	t.Parallel()
	s, store, _ := newService(t)
	c := charge()
	got, err := s.Charge(t.Context(), "user:ann", "k", c)
	if err != nil {
		t.Fatal(err)
	}
	c.Metadata["cart"] = "changed by the caller"
	want := Payment{
		ID: "payment-1", Order: "X1", Customer: ann, Amount: 150, Currency: "EUR", State: StateCaptured,
		Metadata:  map[string]string{"cart": "7"},
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC),
	}
	if !reflect.DeepEqual(got, Receipt{Payment: want}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	posting := Posting{Payment: want, Entries: []Entry{
		{Account: AccountKey{Owner: string(ann), Kind: KindCustomer, Currency: "EUR"}, Amount: -150},
		{Account: AccountKey{Owner: MerchantOwner, Kind: KindMerchant, Currency: "EUR"}, Amount: 150},
	}}
	if len(store.captured) != 1 || !reflect.DeepEqual(store.captured[0], posting) {
		t.Errorf("captured %+v, want %+v", store.captured, posting)
	}
	if want := []string{"lookup", "customer", "capture"}; !reflect.DeepEqual(store.calls, want) {
		t.Errorf("asked %q, want %q", store.calls, want)
	}
}

func TestARepetitionGetsTheFirstPaymentWhateverHasBecomeOfTheCustomer(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*directory){
		"the customer is as before":          func(*directory) {},
		"the customer was locked":            func(d *directory) { d.inactive[ann] = true },
		"the customer is gone":               func(d *directory) { delete(d.inactive, ann) },
		"the directory does not answer":      func(d *directory) { d.fail = ErrUpstreamUnavailable },
		"the directory is broken altogether": func(d *directory) { d.fail = errors.New("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, store, customers := newService(t)
			first, err := s.Charge(t.Context(), "user:ann", "k", charge())
			if err != nil {
				t.Fatal(err)
			}
			change(customers)
			store.calls = nil
			again, err := s.Charge(t.Context(), "user:ann", "k", charge())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again, Receipt{Payment: first.Payment, Replayed: true}) {
				t.Errorf("got %+v, want %+v replayed", again, first.Payment)
			}
			if want := []string{"lookup"}; !reflect.DeepEqual(store.calls, want) {
				t.Errorf("asked %q, want %q", store.calls, want)
			}
		})
	}
}

func TestAChargeThatLosesTheRaceForItsKeyGetsThePaymentOfTheWinner(t *testing.T) {
	t.Parallel()
	s, store, _ := newService(t)
	store.raced = &Payment{ID: "winner", Amount: 150}
	got, err := s.Charge(t.Context(), "user:ann", "k", charge())
	if err != nil || !got.Replayed || got.Payment.ID != "winner" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestARefusedChargeMovesNoMoney(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*Charge, *memory, *directory)
		want   error
	}{
		"the currency is unknown":       {func(c *Charge, _ *memory, _ *directory) { c.Currency = "ZZZ" }, ErrCurrencyUnknown},
		"the customer is unknown":       {func(c *Charge, _ *memory, _ *directory) { c.Customer = "nobody" }, ErrCustomerNotFound},
		"the customer is inactive":      {func(_ *Charge, _ *memory, d *directory) { d.inactive[ann] = true }, ErrCustomerInactive},
		"the directory does not answer": {func(_ *Charge, _ *memory, d *directory) { d.fail = ErrUpstreamUnavailable }, ErrUpstreamUnavailable},
		"the store is broken":           {func(_ *Charge, m *memory, _ *directory) { m.fail = broken }, broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, store, customers := newService(t)
			asked := charge()
			c.change(&asked, store, customers)
			if _, err := s.Charge(t.Context(), "user:ann", "k", asked); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(store.captured) != 0 {
				t.Errorf("captured %+v", store.captured)
			}
			// The error was not kept: the same key is good for the charge once the cause is gone.
			store.fail, customers.fail, customers.inactive[ann] = nil, nil, false
			if r, err := s.Charge(t.Context(), "user:ann", "k", charge()); err != nil || r.Replayed {
				t.Errorf("the charge after it: %+v, %v", r, err)
			}
		})
	}
}

func TestAChargeOfNothingIsAMistakeOfTheProgram(t *testing.T) {
	t.Parallel()
	for _, amount := range []int64{0, -150} {
		s, store, _ := newService(t)
		c := charge()
		c.Amount = amount
		_, err := s.Charge(t.Context(), "user:ann", "k", c)
		if err == nil || fault.KindOf(err) != fault.Internal {
			t.Errorf("amount %d: %v", amount, err)
		}
		if len(store.captured) != 0 {
			t.Errorf("amount %d was captured", amount)
		}
	}
}

func TestFaultsOfACustomerNameTheCustomer(t *testing.T) {
	t.Parallel()
	s, _, customers := newService(t)
	customers.inactive[ann] = true
	_, err := s.Charge(t.Context(), "user:ann", "k", charge())
	f, ok := fault.As(err)
	if !ok || f.Metadata()["customer_id"] != string(ann) {
		t.Errorf("got %v", err)
	}
}

func TestTheSameKeyWithOtherContentIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Charge){
		"order":                   func(c *Charge) { c.Order = "X2" },
		"amount":                  func(c *Charge) { c.Amount++ },
		"currency":                func(c *Charge) { c.Currency = "USD" },
		"customer":                func(c *Charge) { c.Customer = bob },
		"no metadata":             func(c *Charge) { c.Metadata = nil },
		"a value":                 func(c *Charge) { c.Metadata = map[string]string{"cart": "8"} },
		"a key":                   func(c *Charge) { c.Metadata = map[string]string{"cars": "7"} },
		"one more":                func(c *Charge) { c.Metadata["more"] = "" },
		"text that moves over":    func(c *Charge) { c.Metadata = map[string]string{"cart7": ""} },
		"order that takes a part": func(c *Charge) { c.Order = "X1\x00\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := newService(t)
			if _, err := s.Charge(t.Context(), "user:ann", "k", charge()); err != nil {
				t.Fatal(err)
			}
			other := charge()
			change(&other)
			if _, err := s.Charge(t.Context(), "user:ann", "k", other); !errors.Is(err, ErrIdempotencyKeyReused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEqualKeysOfTwoCallersAreTwoCharges(t *testing.T) {
	t.Parallel()
	s, store, _ := newService(t)
	for _, caller := range []string{"user:ann", "service:orders"} {
		if r, err := s.Charge(t.Context(), caller, "k", charge()); err != nil || r.Replayed {
			t.Errorf("%s: %+v, %v", caller, r, err)
		}
	}
	if len(store.captured) != 2 {
		t.Errorf("%d payments, want 2", len(store.captured))
	}
}

// The digest is stored: one that comes out otherwise would refuse the repetition of every charge made before.
func TestTheDigestOfAChargeIsTheSameForEver(t *testing.T) {
	t.Parallel()
	c := Charge{Order: "X1", Customer: ann, Amount: 150, Currency: "EUR", Metadata: map[string]string{"b": "2", "a": "1", "c": ""}}
	const want = "ef2c0b9078c39ab2fe2ef9747f5894bc53720d73a2af374a2ccc57deb83e0f5e"
	if got := fmt.Sprintf("%x", c.digest()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for range 20 { // the order in which a map is walked does not count
		again := c
		again.Metadata = maps.Clone(c.Metadata)
		if again.digest() != c.digest() {
			t.Fatal("the digest of an equal charge is another one")
		}
	}
	empty := c
	c.Metadata, empty.Metadata = nil, map[string]string{}
	if c.digest() != empty.digest() {
		t.Error("no metadata and empty metadata are different content")
	}
}

func TestAPaymentIsShownToThoseWhoMaySeeIt(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t)
	r, err := s.Charge(t.Context(), "user:ann", "k", charge())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		viewer Viewer
		want   error
	}{
		"its customer":                  {Only(ann), nil},
		"a service or an administrator": {Everyone(), nil},
		"a stranger":                    {Only(bob), ErrPaymentNotFound},
		"nobody":                        {Viewer{}, ErrPaymentNotFound},
		"a user without an id":          {Only(""), ErrPaymentNotFound},
	} {
		got, err := s.Get(t.Context(), c.viewer, r.Payment.ID)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && !reflect.DeepEqual(got, r.Payment) || err != nil && !reflect.DeepEqual(got, Payment{}) {
			t.Errorf("%s got %+v", name, got)
		}
	}
	_, missing := s.Get(t.Context(), Everyone(), "missing")
	_, strange := s.Get(t.Context(), Only(bob), r.Payment.ID)
	if !reflect.DeepEqual(missing, strange) {
		t.Errorf("a stranger's answer %#v is not that for a missing one %#v", strange, missing)
	}
}

func TestAViewerWithoutAnIdDoesNotSeeAPaymentWithoutACustomer(t *testing.T) {
	t.Parallel()
	if Only("").Sees(Payment{}) || (Viewer{}).Sees(Payment{}) {
		t.Error("it is seen")
	}
}

func TestAPageHasAsManyPaymentsAsWereAskedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		there, limit int
		want         int
		more         bool
		asked        int
	}{
		"nothing is there":                 {0, 0, 0, false, 51},
		"no size is 50, and there are 51":  {51, 0, 50, true, 51},
		"no size is 50, and there are 50":  {50, 0, 50, false, 51},
		"one, of two":                      {2, 1, 1, true, 2},
		"the largest":                      {1001, 1000, 1000, true, 1001},
		"more than the largest is the one": {1001, 5000, 1000, true, 1001},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, store, _ := newService(t)
			for i := range c.there {
				store.captured = append(store.captured, Posting{Payment: Payment{ID: ID(fmt.Sprint(i))}})
			}
			page, err := s.List(t.Context(), Query{Limit: c.limit, After: "x"})
			if err != nil || len(page.Payments) != c.want || page.More != c.more {
				t.Errorf("%d payments, more: %v, %v", len(page.Payments), page.More, err)
			}
			if want := fmt.Sprintf("list %d after %q", c.asked, "x"); store.calls[0] != want {
				t.Errorf("asked %q, want %q", store.calls[0], want)
			}
		})
	}
}

func TestEveryFaultIsValidAndListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, f := range Faults() {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		listed[f.Reason()] = true
	}
	for _, reason := range declaredReasons(t) {
		if !listed[reason] {
			t.Errorf("Faults does not list %s", reason)
		}
	}
}

// declaredReasons returns the reasons of all faults that the source of this package makes.
func declaredReasons(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "New" && len(call.Args) == 3 {
				reasons = append(reasons, strings.Trim(call.Args[1].(*ast.BasicLit).Value, `"`))
			}
			return true
		})
	}
	if len(reasons) == 0 {
		t.Fatal("no fault was found in the source")
	}
	return reasons
}
