package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
)

// Whatever is asked of the service, in whatever order, with keys that come again and time that passes: it answers as
// the model does, the accounts have what the model has, and in the end the books are whole. More of it, and the same
// again:
//
//	go test -run TestTheServiceDoesAsTheModel -timeout 2h -rapid.checks 2000 -rapid.steps 180 -rapid.seed 7
//
// is a million operations on each engine.
func TestTheServiceDoesAsTheModel(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			clock := clocktest.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			opts := Options{Clock: clock, Random: rand.Reader, NewID: id.Generator(clock, rand.Reader)}
			if engine == sqldb.PostgreSQL {
				opts.URL = sqldb.URL(postgrestest.Database(t))
			} else {
				opts.Dir = t.TempDir()
			}
			s, err := Open(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			service, err := payments.NewService(payments.Deps{
				Store: s, Customers: directory{}, Processor: simulator.New(clock), Clock: clock, NewID: opts.NewID, AuthorizationExpiry: expiry,
			})
			if err != nil {
				t.Fatal(err)
			}
			// All checks share the store: each has customers, accounts and callers of its own.
			checks, operations := 0, 0
			rapid.Check(t, func(r *rapid.T) {
				checks++
				m := newMachine(r, t.Context(), service, clock, checks)
				defer func() { operations += m.operations }()
				r.Repeat(map[string]func(*rapid.T){
					"": m.compare, "charge": m.charge, "authorize": m.authorize, "burst": m.burst, "capture": m.capture, "capture more": m.capture,
					"cancel": m.cancel, "refund": m.refund, "refund more": m.refund, "transfer": m.transfer, "time": m.time, "look": m.look,
				})
			})
			proof, err := s.Verify(t.Context())
			if err := errors.Join(err, proof.Err()); err != nil {
				t.Error(err)
			}
			t.Logf("%d checks, %d operations, %d transfers", checks, operations, proof.Transfers)
		})
	}
}

const (
	expiry    = 3 * time.Hour
	retention = 24 * time.Hour
)

// machine is the service beside the model.
type machine struct {
	*model
	ctx        context.Context
	service    *payments.Service
	clock      *clocktest.Manual
	name       string
	customers  []payments.CustomerID
	general    []ledger.AccountID
	ids        map[payments.CustomerID]ledger.AccountID // of the customers' accounts
	merchant   ledger.AccountID
	before     int64 // the number of the account before the first of these
	operations int
	bursts     int
}

func newMachine(r *rapid.T, ctx context.Context, service *payments.Service, clock *clocktest.Manual, check int) *machine {
	m := &machine{
		model: &model{
			accounts: make(map[ledger.AccountID]*modelAccount), moved: make(map[int64]*modelTransfer), holds: make(map[int64]*modelHold),
			kept: make(map[payments.Key]*modelKept),
		},
		ctx: ctx, service: service, clock: clock, name: fmt.Sprint("check-", check), ids: make(map[payments.CustomerID]ledger.AccountID),
	}
	// What the check before has left open would move the merchant's account.
	m.tick(2 * retention)
	for _, what := range []string{"recover", "release", "forget"} {
		m.tend(r, what)
	}
	open := func(key ledger.Key, limit int64) ledger.AccountID {
		o, err := service.OpenAccount(ctx, m.name, key.Owner+string(key.Kind), payments.OpenAccount{Key: key, Limited: limit >= 0, Limit: max(limit, 0)})
		if err != nil {
			r.Fatalf("open %v: %v", key, err)
		}
		if m.before == 0 {
			m.before = o.Account.Number - 1
		}
		m.accounts[o.Account.ID] = &modelAccount{limited: limit >= 0, limit: max(limit, 0)}
		return o.Account.ID
	}
	m.findMerchant(r)
	for i, limit := range []int64{-1, 0, 200} {
		customer := payments.CustomerID(fmt.Sprint(m.name, "-customer-", i))
		m.customers = append(m.customers, customer)
		m.ids[customer] = open(payments.CustomerAccount(customer, "EUR"), limit)
	}
	for i, limit := range []int64{-1, 50} {
		m.general = append(m.general, open(ledger.Key{Owner: fmt.Sprint(m.name, "-", i), Kind: ledger.General, Currency: "EUR"}, limit))
	}
	return m
}

// findMerchant takes over what the merchant has, whom all checks pay.
func (m *machine) findMerchant(r *rapid.T) {
	found, _, err := m.service.Accounts(m.ctx, payments.MerchantOwner, 0, 1)
	if err != nil {
		r.Fatal(err)
	}
	if len(found) == 0 {
		if _, err := m.service.OpenAccount(m.ctx, m.name, "merchant", payments.OpenAccount{Key: payments.MerchantAccount("EUR")}); err != nil {
			r.Fatal(err)
		}
		m.findMerchant(r)
		return
	}
	m.merchant = found[0].ID
	m.accounts[m.merchant] = &modelAccount{balance: found[0].Balance, held: found[0].Held}
}

// tick moves the time.
func (m *machine) tick(d time.Duration) {
	m.clock.Advance(d)
	m.now = m.clock.Now()
}

// compare holds the accounts against the model.
func (m *machine) compare(r *rapid.T) {
	own, _, err := m.service.Accounts(m.ctx, "", m.before, len(m.accounts)-1)
	want(r, "list the accounts", err, nil)
	merchant, err := m.service.Account(m.ctx, payments.Everyone(), m.merchant, time.Time{})
	want(r, "get the merchant's account", err, nil)
	for _, a := range append(own, merchant) {
		want := m.accounts[a.ID]
		if want == nil || a.Balance != want.balance || a.Held != want.held {
			r.Fatalf("the account of %s has %d and holds %d, the model says %+v", a.Owner, a.Balance, a.Held, want)
		}
	}
}

// begin counts an operation, and lets a moment pass before it, so that no two are at one.
func (m *machine) begin(r *rapid.T, method string) payments.Key {
	m.operations++
	m.tick(time.Millisecond)
	return payments.Key{
		Caller: m.name + rapid.SampledFrom([]string{"-a", "-b"}).Draw(r, "caller"), Method: method,
		Key: strconv.Itoa(rapid.IntRange(0, 30).Draw(r, "key")),
	}
}

func draw[T any](r *rapid.T, label string, of ...T) T { return rapid.SampledFrom(of).Draw(r, label) }

// want compares how a request ended with what the model says.
func want(r *rapid.T, what string, err, want error) {
	if !errors.Is(err, want) || want == nil && err != nil {
		r.Fatalf("%s: %v, the model says %v", what, err, want)
	}
}

func wantSame[T any](r *rapid.T, what string, got, want T) {
	if !reflect.DeepEqual(got, want) {
		r.Fatalf("%s:\n%+v, the model says\n%+v", what, got, want)
	}
}

func (m *machine) charge(r *rapid.T)    { m.chargeOne(r, false) }
func (m *machine) authorize(r *rapid.T) { m.chargeOne(r, true) }

func (m *machine) chargeOne(r *rapid.T, authorize bool) {
	c := payments.Charge{
		Order: "order", Customer: draw(r, "customer", m.customers...), Amount: draw[int64](r, "amount", 50, 60, 150), Currency: "EUR",
		Token: draw(r, "token", "", "", "", simulator.OK, simulator.Declined, simulator.ExpiredCard, simulator.Flaky, simulator.LostResponse,
			simulator.CaptureDeclined, simulator.RefundDeclined, "what"),
		AuthorizeOnly: authorize,
	}
	key := m.begin(r, "charge")
	got, err := m.service.Charge(m.ctx, key.Caller, key.Key, c)
	m.charged(r, key, c, got, err)
}

// charged holds what came of a charge against the model, and takes it over.
func (m *machine) charged(r *rapid.T, key payments.Key, c payments.Charge, got payments.Outcome, err error) {
	content := fmt.Sprintf("%+v", c)
	kept, refused := m.claim(key, content)
	if m.answered(r, "charge", kept, refused, got, err) {
		return
	}
	from, to := m.accounts[m.ids[c.Customer]], m.accounts[m.merchant]
	p := &modelPayment{is: m.model.charge(c, from), token: c.Token, authorize: c.AuthorizeOnly}
	made := got.Payment
	if p.is.Busy {
		want(r, "charge", err, payments.ErrProcessorUnavailable)
		page, err := m.service.List(m.ctx, payments.Query{Customer: c.Customer, Limit: 1})
		want(r, "look for the payment", err, nil)
		made = page.Payments[0]
	} else {
		want(r, "charge", err, nil)
	}
	p.is.ID, p.is.Number, p.is.Hold = made.ID, made.Number, made.Hold
	p.is.CreatedAt, p.is.UpdatedAt = m.now, m.now
	if held := p.is.Busy || p.is.Capturable > 0; held {
		p.is.ExpiresAt = m.now.Add(expiry)
		p.hold = &modelHold{from: from, to: to, left: c.Amount, expires: p.is.ExpiresAt, payment: p}
		m.holds[made.Hold] = p.hold
		from.held += c.Amount
	}
	from.balance -= p.is.Captured
	to.balance += p.is.Captured
	wantSame(r, "charge", made, p.is)
	m.payments = append(m.payments, p)
	k := &modelKept{content: content, at: m.now, open: p.is.Busy, payment: p.is}
	m.kept[key] = k
	if p.is.Busy {
		p.asked = k
	}
}

// answered says whether the key has decided: by an answer of before, or by a refusal.
func (m *machine) answered(r *rapid.T, what string, kept *modelKept, refused error, got payments.Outcome, err error) bool {
	switch {
	case refused == nil:
		if got.Replayed {
			r.Fatalf("%s: what is new is said to be a replay: %+v", what, got)
		}
		return false
	case errors.Is(refused, errReplay):
		want(r, what+" again", err, nil)
		wantSame(r, what+" again", got, payments.Outcome{Payment: kept.payment, Transfers: kept.transfers, Replayed: true})
	default:
		want(r, what, err, refused)
	}
	return true
}

// burst charges many times at once, so that there are batches: some with one key, the rest each with its own.
func (m *machine) burst(r *rapid.T) {
	m.begin(r, "charge")
	m.bursts++
	c := payments.Charge{Order: "order", Customer: m.customers[0], Amount: 50, Currency: "EUR"}
	const equal, all = 6, 12
	outcomes, errs := make([]payments.Outcome, all), make([]error, all)
	key := func(i int) payments.Key {
		return payments.Key{Caller: m.name, Method: "charge", Key: fmt.Sprint("burst-", m.bursts, "-", max(i, equal-1))}
	}
	var group sync.WaitGroup
	for i := range all {
		group.Go(func() { outcomes[i], errs[i] = m.service.Charge(m.ctx, key(i).Caller, key(i).Key, c) })
	}
	group.Wait()
	// Which of the equal ones is the first is not known before.
	first := slices.IndexFunc(outcomes[:equal], func(o payments.Outcome) bool { return !o.Replayed })
	if first < 0 {
		r.Fatalf("of %d equal charges none is the first: %v", equal, errs)
	}
	outcomes[0], outcomes[first], errs[0], errs[first] = outcomes[first], outcomes[0], errs[first], errs[0]
	for i := range all {
		m.operations++
		m.charged(r, key(i), c, outcomes[i], errs[i])
	}
}

// change makes a change of a payment, and holds it against the model: amount is how much it is about, apply what it
// does.
func (m *machine) change(
	r *rapid.T, method string, p *modelPayment, content string, call func(payments.Key) (payments.Outcome, error), amount func() (int64, error), apply func(int64),
) {
	key := m.begin(r, method)
	got, err := call(key)
	kept, refused := m.claim(key, content)
	if m.answered(r, method, kept, refused, got, err) {
		return
	}
	about, refused := amount()
	want(r, method, err, refused)
	if refused != nil {
		return
	}
	decline := payments.Declined
	if !p.declines(method) {
		apply(about)
		decline = payments.NotDeclined
	}
	if p.is.Capturable == 0 {
		p.is.ExpiresAt = time.Time{}
	}
	p.is.State, p.is.UpdatedAt = state(p.is), m.now
	told := p.is
	told.Decline = decline
	wantSame(r, method, got.Payment, told)
	m.kept[key] = &modelKept{content: content, at: m.now, payment: told}
}

// some returns a payment, mostly one for which the change can be made.
func (m *machine) some(r *rapid.T, can func(*modelPayment) bool) *modelPayment {
	if len(m.payments) == 0 {
		r.Skip("there is no payment")
	}
	among := m.payments
	if rapid.IntRange(0, 9).Draw(r, "any") > 0 {
		among = slices.DeleteFunc(slices.Clone(among), func(p *modelPayment) bool { return !can(p) })
		if len(among) == 0 {
			r.Skip("there is none of which that can be")
		}
	}
	return among[rapid.IntRange(0, len(among)-1).Draw(r, "payment")]
}

func held(p *modelPayment) bool { return p.is.Capturable > 0 }
func paid(p *modelPayment) bool { return p.is.Captured > p.is.Refunded }
func some(*modelPayment) bool   { return true }

func (m *machine) capture(r *rapid.T) {
	p, final := m.some(r, held), rapid.IntRange(0, 3).Draw(r, "final") == 0
	amount := draw(r, "amount", 0, 1, 20, max(p.is.Capturable-1, 0), p.is.Capturable, p.is.Capturable+1)
	m.change(r, "capture", p, fmt.Sprint(p.is.ID, amount, final), func(k payments.Key) (payments.Outcome, error) {
		return m.service.Capture(m.ctx, k.Caller, k.Key, payments.Everyone(), p.is.ID, amount, final)
	}, func() (int64, error) { return m.capturable(p, amount) }, func(about int64) {
		p.hold.post(about)
		p.is.Captured += about
		p.is.Capturable -= about
		if final {
			p.hold.void()
			p.is.Capturable = 0
		}
	})
}

func (m *machine) cancel(r *rapid.T) {
	p := m.some(r, held)
	m.change(r, "cancel", p, fmt.Sprint(p.is.ID), func(k payments.Key) (payments.Outcome, error) {
		return m.service.Cancel(m.ctx, k.Caller, k.Key, payments.Everyone(), p.is.ID)
	}, func() (int64, error) { return m.capturable(p, 0) }, func(int64) {
		p.hold.void()
		p.is.Capturable = 0
	})
}

func (m *machine) refund(r *rapid.T) {
	p := m.some(r, paid)
	amount := draw(r, "amount", 0, 1, 20, p.is.Captured-p.is.Refunded+1, p.is.Captured)
	m.change(r, "refund", p, fmt.Sprint(p.is.ID, amount), func(k payments.Key) (payments.Outcome, error) {
		return m.service.Refund(m.ctx, k.Caller, k.Key, payments.Everyone(), p.is.ID, amount)
	}, func() (int64, error) { return m.refundable(p, amount) }, func(about int64) {
		p.is.Refunded += about
		m.accounts[m.merchant].balance -= about
		m.accounts[m.ids[p.is.Customer]].balance += about
	})
}

// transfer does some operations at once, on accounts of payments too.
func (m *machine) transfer(r *rapid.T) {
	accounts := append(slices.Clone(m.general), m.ids[m.customers[0]], m.ids[m.customers[1]])
	numbers := append(slices.Sorted(maps.Keys(m.holds)), slices.Sorted(maps.Keys(m.moved))...)
	numbers = append(numbers, 1<<40) // there is none
	var all []operation
	var request []payments.TransferOperation
	for range rapid.IntRange(1, 3).Draw(r, "operations") {
		o := operation{kind: draw(r, "kind", ledger.Move, ledger.Move, ledger.Pending, ledger.Post, ledger.Void, ledger.Reversal)}
		asked := payments.TransferOperation{Kind: o.kind}
		switch o.kind {
		case ledger.Move, ledger.Pending:
			o.from, o.to = draw(r, "from", accounts...), draw(r, "to", accounts...)
			o.amount = draw[int64](r, "amount", 1, 20, 70)
			asked.Legs = []payments.TransferLeg{{Account: o.from, Amount: -o.amount}, {Account: o.to, Amount: o.amount}}
			if o.kind == ledger.Pending {
				o.expires = draw(r, "expires", 0, time.Hour)
				asked.ExpiresIn = o.expires
			}
		default:
			o.of = draw(r, "of", numbers...)
			if asked.Of = o.of; o.kind == ledger.Post {
				o.amount = draw[int64](r, "amount", 0, 1, 20, 70)
				asked.Amount = o.amount
			}
		}
		all, request = append(all, o), append(request, asked)
	}
	key := m.begin(r, "transfer")
	got, err := m.service.Transfer(m.ctx, key.Caller, key.Key, request, nil)
	content := fmt.Sprint(all)
	kept, refused := m.claim(key, content)
	if m.answered(r, "transfer", kept, refused, got, err) {
		return
	}
	next := int64(0)
	if len(got.Transfers) > 0 {
		next = got.Transfers[0].Number
	}
	copied := m.copied()
	refused = copied.do(all, next)
	want(r, fmt.Sprintf("transfer %+v", all), err, refused)
	if refused != nil {
		return
	}
	m.takeOver(copied)
	for i, t := range got.Transfers {
		if t.Number != next+int64(i) || t.Kind != all[i].kind || t.Of != all[i].of || !t.At.Equal(m.now) {
			r.Fatalf("transfer %d of %+v is %+v", i, all, t)
		}
	}
	m.kept[key] = &modelKept{content: content, at: m.now, transfers: got.Transfers}
}

// time lets time pass, and then what it makes to do.
func (m *machine) time(r *rapid.T) {
	m.operations++
	m.tick(draw(r, "passes", time.Second, time.Second, time.Minute, time.Minute, time.Hour, 25*time.Hour))
	for _, what := range rapid.Permutation([]string{"recover", "release", "forget"}).Draw(r, "then") {
		m.tend(r, what)
		switch what {
		case "recover":
			m.recover()
		case "release":
			for _, p := range m.release() {
				p.is.ExpiresAt, p.is.State, p.is.UpdatedAt = time.Time{}, state(p.is), m.now
			}
		case "forget":
			m.forget(retention)
		}
	}
}

// tend has the service do what its time has made to do.
func (m *machine) tend(r *rapid.T, what string) {
	for n := 1; n > 0; {
		var err error
		switch what {
		case "recover":
			n, err = m.service.Recover(m.ctx)
		case "release":
			n, err = m.service.Release(m.ctx)
		case "forget":
			n, err = m.service.Forget(m.ctx, retention)
		}
		want(r, what, err, nil)
	}
}

// recover takes over what the processor says when it is asked again: that it is done.
func (m *machine) recover() {
	for _, p := range m.payments {
		if p.asked == nil || !p.asked.at.Before(m.now.Add(-10*time.Second)) {
			continue
		}
		p.is.Busy, p.is.UpdatedAt = false, m.now
		if p.authorize {
			p.is.Capturable = p.is.Amount
		} else {
			p.hold.post(p.is.Amount)
			p.is.Captured, p.is.ExpiresAt = p.is.Amount, time.Time{}
		}
		p.is.State = state(p.is)
		p.asked.open, p.asked.payment = false, p.is
		p.asked = nil
	}
}

// look holds a payment, and the newest of its customer, against the model.
func (m *machine) look(r *rapid.T) {
	m.operations++
	p := m.some(r, some)
	got, err := m.service.Get(m.ctx, payments.Only(p.is.Customer), p.is.ID)
	want(r, "get", err, nil)
	wantSame(r, "get", got, p.is)
	_, err = m.service.Get(m.ctx, payments.Only("somebody else"), p.is.ID)
	want(r, "get another's", err, payments.ErrPaymentNotFound)
	var all []payments.Payment
	for _, p := range m.payments {
		if p.is.Customer == got.Customer {
			all = append(all, p.is)
		}
	}
	slices.SortFunc(all, func(a, b payments.Payment) int { return int(b.Number - a.Number) })
	page, err := m.service.List(m.ctx, payments.Query{Customer: got.Customer, Limit: 5})
	want(r, "list", err, nil)
	wantSame(r, "list", page.Payments, all[:min(5, len(all))])
}
