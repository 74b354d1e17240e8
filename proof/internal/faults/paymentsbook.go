package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// errNothingYet: nothing was acknowledged that could be looked at.
var errNothingYet = errors.New("nothing is known yet")

// kind is what becomes of a charge.
type kind int

const (
	plain      kind = iota // captured at once, then given back in three parts
	authorized             // then captured in two parts, and some of it given back
	canceled               // authorized, then released
	declined
	remote // by a processor that does what it is asked for and whose first answer is lost
)

// The tokens of the simulated processor.
const (
	declinedToken = "tok_declined"
	remoteToken   = "tok_lost_response"
)

// charge is a charge that was asked for.
type charge struct {
	kind                 kind
	order, key, customer string
	amount               int64
	id                   string              // of the payment, once it is known
	first                *paymentsv1.Payment // what was answered first
	asked                time.Time           // when it was asked for first
	seen                 time.Time           // when it was first known to be there; zero means never
	settled              bool                // whether it was answered with OK
	refused              bool                // whether it is not to be there: the customer is locked
	tried                bool                // whether the load waits for its answer before it sends it again
	busy                 bool                // whether somebody takes a step
	steps                []step
	attempts             []*attempt
}

// step is a change of a payment: its number in steps, from one.
type step struct {
	key   string
	asked time.Time // when it was asked for first
	done  time.Time // when it was answered with OK; zero means never
}

// attempt is one time that a charge was sent. Times are since the begin of the book.
type attempt struct {
	call, ret time.Duration // ret is zero as long as there is no answer
	id        string        // of the payment that was answered; empty means that it is not known what became of it
	replayed  bool
}

// standing is where a payment stands.
type standing struct {
	state                          paymentsv1.PaymentState
	captured, refunded, capturable int64
}

func standingOf(p *paymentsv1.Payment) standing {
	return standing{p.GetState(), p.GetCapturedCents(), p.GetRefundedCents(), p.GetCapturableCents()}
}

// after returns where a payment stands after its first n steps, and whether it has so many.
func (c *charge) after(n int) (standing, bool) {
	part := c.amount / 4
	var all []standing
	switch c.kind {
	case plain, remote:
		all = []standing{
			{paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED, c.amount, 0, 0},
			{paymentsv1.PaymentState_PAYMENT_STATE_PARTIALLY_REFUNDED, c.amount, part, 0},
			{paymentsv1.PaymentState_PAYMENT_STATE_PARTIALLY_REFUNDED, c.amount, 2 * part, 0},
			{paymentsv1.PaymentState_PAYMENT_STATE_REFUNDED, c.amount, c.amount, 0},
		}
	case authorized:
		all = []standing{
			{paymentsv1.PaymentState_PAYMENT_STATE_AUTHORIZED, 0, 0, c.amount},
			{paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED, part, 0, c.amount - part},
			{paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED, c.amount, 0, 0},
			{paymentsv1.PaymentState_PAYMENT_STATE_PARTIALLY_REFUNDED, c.amount, part, 0},
		}
	case canceled:
		all = []standing{
			{paymentsv1.PaymentState_PAYMENT_STATE_AUTHORIZED, 0, 0, c.amount},
			{paymentsv1.PaymentState_PAYMENT_STATE_CANCELED, 0, 0, 0},
		}
	case declined:
		all = []standing{{paymentsv1.PaymentState_PAYMENT_STATE_FAILED, 0, 0, 0}}
	}
	if n >= len(all) {
		return standing{}, false
	}
	return all[n], true
}

// steppedTo returns after how many of its steps a payment stands there, or -1.
func (c *charge) steppedTo(s standing) int {
	for n := 0; ; n++ {
		switch at, ok := c.after(n); {
		case !ok:
			return -1
		case at == s:
			return n
		}
	}
}

// done returns how many of the steps were acknowledged by then.
func (c *charge) done(by time.Time) int {
	n := 0
	for i, s := range c.steps {
		if !s.done.IsZero() && !s.done.After(by) {
			n = i + 1
		}
	}
	return n
}

func (c *charge) request() *paymentsv1.ChargeRequest {
	req := &paymentsv1.ChargeRequest{
		OrderId: c.order, AmountCents: c.amount, Currency: currency, IdempotencyKey: c.key, CustomerId: c.customer,
		Metadata: map[string]string{"shop": "one"},
	}
	switch c.kind {
	case authorized, canceled:
		req.Capture = proto.Bool(false)
	case declined:
		req.PaymentToken = declinedToken
	case remote:
		req.PaymentToken = remoteToken
	}
	return req
}

// kind returns what becomes of the next charge. Few are remote: each of those may take as long as the service waits until it asks the
// processor again.
func (p *payments) kind() kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch n := p.random.IntN(1000); {
	case n < 1:
		return remote
	case n < 50:
		return declined
	case n < 150:
		return canceled
	case n < 450:
		return authorized
	}
	return plain
}

// ask notes one more charge.
func (p *payments) ask(k kind) *charge { return p.askOf(k, "") }

// askOf notes one more charge of a customer; "" is any of those who are charged all the time.
func (p *payments) askOf(k kind, customer string) *charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.note(k, customer)
}

// askAlone notes one more charge of a customer, which the load does not send again before it is known whether it may be
// made at all.
func (p *payments) askAlone(customer string) *charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.note(plain, customer)
	c.tried = true
	return c
}

// note makes a charge and notes it. It is called with the lock held.
func (p *payments) note(k kind, customer string) *charge {
	if customer == "" {
		customer = p.customers[p.random.IntN(len(p.customers))]
	}
	c := &charge{
		asked: time.Now(),
		kind:  k, order: fmt.Sprintf("order-%d", len(p.charges)), key: p.newID(), amount: 100 + p.random.Int64N(100_000), customer: customer,
	}
	p.charges = append(p.charges, c)
	p.orders[c.order] = c
	return c
}

// since returns the time of the history.
func (p *payments) since() time.Duration { return time.Since(p.begun) }

// wrong notes what is not as it must be.
func (p *payments) wrong(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrongs = append(p.wrongs, fmt.Sprintf(format, args...))
}

// attempt notes that a charge is sent; what it returns notes the answer, and returns its error, which may be another one: that an
// answer is not the one that must be is not for the caller to try again.
func (p *payments) attempt(c *charge) func(*paymentsv1.Payment, bool, error) error {
	a := &attempt{call: p.since()}
	p.mu.Lock()
	c.attempts = append(c.attempts, a)
	p.mu.Unlock()
	return func(got *paymentsv1.Payment, replayed bool, err error) error {
		if err != nil {
			return err
		}
		now := time.Now()
		p.mu.Lock()
		defer p.mu.Unlock()
		a.ret, a.id, a.replayed = p.since(), got.GetPaymentId(), replayed
		if c.first == nil {
			c.first = got
		}
		if !proto.Equal(c.first, got) {
			p.wrongs = append(p.wrongs, fmt.Sprintf("%s was answered with %v, and then with %v", c.order, c.first, got))
		}
		if got.GetOrderId() != c.order || got.GetAmountCents() != c.amount || got.GetCustomerId() != c.customer || c.steppedTo(standingOf(got)) != 0 {
			p.wrongs = append(p.wrongs, fmt.Sprintf("%s was answered with %v", c.order, got))
		}
		c.id, c.settled = got.GetPaymentId(), true
		if c.seen.IsZero() {
			c.seen = now
		}
		return nil
	}
}

// told notes that others were told of a payment.
func (p *payments) told(got *paymentsv1.Payment) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.orders[got.GetOrderId()]
	if c == nil {
		return // of an audit
	}
	if c.id != "" && c.id != got.GetPaymentId() {
		p.wrongs = append(p.wrongs, fmt.Sprintf("%s is payment %s, and others are told of it as %s", c.order, c.id, got.GetPaymentId()))
	}
	if p.deaf {
		return
	}
	c.id = got.GetPaymentId()
	if c.seen.IsZero() {
		c.seen = now
	}
}

// pick takes a payment that nobody changes and that has a step left, and notes that it is about to be taken.
func (p *payments) pick() *charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 20 {
		if len(p.charges) == 0 {
			return nil
		}
		c := p.charges[p.random.IntN(len(p.charges))]
		if _, more := c.after(len(c.steps) + 1); more && c.settled && !c.busy {
			c.busy = true
			c.steps = append(c.steps, step{key: p.newID(), asked: time.Now()})
			return c
		}
	}
	return nil
}

// step sends the last step of a payment.
func (p *payments) step(ctx context.Context, client paymentsv1.PaymentServiceClient, c *charge) error {
	p.mu.Lock()
	n := len(c.steps)
	before, _ := c.after(n - 1)
	want, _ := c.after(n)
	key, id := c.steps[n-1].key, c.id
	p.mu.Unlock()
	var got *paymentsv1.Payment
	var err error
	switch {
	case want.refunded > before.refunded:
		var resp *paymentsv1.RefundPaymentResponse
		resp, err = client.RefundPayment(ctx, &paymentsv1.RefundPaymentRequest{
			PaymentId: id, IdempotencyKey: key, AmountCents: part(want.refunded-before.refunded, want.refunded == want.captured),
		})
		got = resp.GetPayment()
	case want.captured > before.captured:
		var resp *paymentsv1.CapturePaymentResponse
		resp, err = client.CapturePayment(ctx, &paymentsv1.CapturePaymentRequest{
			PaymentId: id, IdempotencyKey: key, AmountCents: part(want.captured-before.captured, want.capturable == 0),
		})
		got = resp.GetPayment()
	default:
		var resp *paymentsv1.CancelPaymentResponse
		resp, err = client.CancelPayment(ctx, &paymentsv1.CancelPaymentRequest{PaymentId: id, IdempotencyKey: key})
		got = resp.GetPayment()
	}
	if err != nil {
		return err
	}
	if got.GetPaymentId() != id || standingOf(got) != want {
		p.wrong("%s is %v after its step %d", c.order, got, n)
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.steps[n-1].done.IsZero() {
		c.steps[n-1].done = now
	}
	return nil
}

// part returns the amount to ask for: zero where it is all that is left.
func part(amount int64, rest bool) int64 {
	if rest {
		return 0
	}
	return amount
}

// Acknowledged implements Workload.
func (p *payments) Acknowledged(since, by time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for _, c := range p.charges {
		if within(c.asked, c.seen, since, by) {
			count++
		}
		for _, s := range c.steps {
			if within(s.asked, s.done, since, by) {
				count++
			}
		}
	}
	for _, t := range p.transfers {
		if t.acknowledged(by) && within(t.asked, t.done, since, by) {
			count++
		}
	}
	return count
}

// metadataOf is the header of an answer.
type metadataOf struct{ header metadata.MD }

func (m *metadataOf) option() grpc.CallOption { return grpc.Header(&m.header) }

// replayed says whether the answer is that of an earlier call.
func (m *metadataOf) replayed() bool {
	values := m.header.Get("idempotency-replayed")
	return len(values) == 1 && values[0] == "true"
}

// statusError returns the error that a status is, nil for none.
func statusError(s *rpcstatus.Status) error {
	if s == nil {
		return nil
	}
	return status.ErrorProto(s)
}
