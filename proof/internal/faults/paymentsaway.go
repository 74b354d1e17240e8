package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/proof/internal/auth"
)

const (
	// staleness is for how long customers who were charged before are charged while auth is away: the default of
	// --customer-staleness.
	staleness = time.Minute
	// uncertain is how much longer ago than it went away auth may have been heard last, and how long all of an outage
	// takes by the machine's clock.
	uncertain = 15 * time.Second
	// shortOutage is how long auth is away, by the clock of the service, while who is known is charged.
	shortOutage = 30 * time.Second
	// heardWithin is how soon after auth has told of a lock nobody charges that customer any more.
	heardWithin = time.Second
	// unheard is for how long the events that were missed are held back once auth is there again.
	unheard = 300 * time.Millisecond
)

// authAway is the name of the fault.
const authAway = "auth away"

// How charges are answered that are not made.
const (
	noAuth   = "Unavailable UPSTREAM_UNAVAILABLE"
	isLocked = "FailedPrecondition CUSTOMER_INACTIVE"
)

// outages is a payments service whose auth goes away and comes back, and whose clock is moved meanwhile.
type outages struct {
	*bench
	state   *auth.Auth
	auth    *auth.Server
	clock   *moved
	p       *process
	w       *payments
	watched *healing
	all     *Audit
}

// authAway takes auth away from payments under load, for a while and for long by the service's clock, and brings
// it back. A customer is locked meanwhile.
func (b *bench) authAway(ctx context.Context) (all Audit, note string, err error) {
	c, clock, err := b.withClock(ctx)
	if err != nil {
		return all, "", err
	}
	o := &outages{bench: c, state: auth.New(), clock: clock, watched: &healing{flying: make(map[int]time.Time)}, all: &all}
	if o.auth, err = o.state.Serve(ctx, c.pki, trustDomain, "127.0.0.1:0"); err != nil {
		return all, "", err
	}
	defer func() { _ = o.auth.Close() }() // it has nothing to lose
	c.settings = paymentsSettings(o.auth)
	refused := &answers{counts: map[string]int{}, on: true}
	w := c.book(func() func(error) {
		ended, told := o.watched.calls(), refused.calls()
		return func(err error) { ended(err); told(err) }
	})
	var ok bool
	if o.w, ok = w.(*payments); !ok {
		return all, "", fmt.Errorf("auth is away from payments alone, and this is %T", w)
	}
	s, cursor := store{data: c.fresh("away")}, &Cursor{}
	if o.p, err = c.start(ctx, s, false); err != nil {
		return all, "", err
	}
	defer func() { _ = o.p.kill() }() // where it went on to the end, it has been stopped
	if err := w.Begin(ctx, o.p.conn); err != nil {
		return all, "", err
	}
	for n := range b.effort.outages {
		for _, lasts := range []time.Duration{shortOutage, b.longOutage} {
			when := fmt.Sprintf("auth away %d, for %s", n+1, lasts)
			var took time.Duration
			if err := under(ctx, w, o.p, func(ctx context.Context) (err error) {
				took, err = o.once(ctx, lasts, when)
				return err
			}); err != nil {
				return all, "", fmt.Errorf("%s: %w", when, err)
			}
			b.away++
			b.back = append(b.back, took.Seconds())
			c.settle(ctx, o.p, w, &all, when)
			all.add(c.audit(ctx, o.p, w, always(), cursor, when))
		}
	}
	c.order(w, &all, "at the end")
	c.inspect(ctx, o.p, s, &all, "at the end")
	for _, other := range refused.others(noAuth) {
		all.wrong("calls while auth is away: %s", other)
	}
	return all, fmt.Sprintf("%d times; %s", b.away, refused), ctx.Err()
}

// once takes auth away for so long and brings it back. It returns how long after that the last call was in trouble.
func (o *outages) once(ctx context.Context, lasts time.Duration, when string) (time.Duration, error) {
	client := paymentsv1.NewPaymentServiceClient(o.p.conn)
	// All who are charged all the time are known, and one more, who is going to be locked.
	unlucky := o.w.newID()
	var early *charge
	for _, customer := range append([]string{unlucky}, o.w.customers...) {
		c := o.w.askOf(plain, customer)
		if early == nil {
			early = c
		}
		if err := o.w.send(ctx, client, c); err != nil {
			return 0, fmt.Errorf("charge a customer: %w", err)
		}
	}
	if err := o.auth.Close(); err != nil {
		return 0, err
	}
	o.state.Lock(unlucky)
	if err := o.endure(ctx, client, unlucky, lasts, when); err != nil {
		return 0, err
	}
	streams, release := o.state.Streams(), o.state.Hold()
	defer release()
	var err error
	if o.auth, err = o.state.Serve(ctx, o.pki, trustDomain, o.auth.Address); err != nil {
		return 0, err
	}
	back := time.Now()
	for o.state.Streams() == streams {
		if time.Since(back) > patience {
			o.all.wrong("%s: auth is not listened to again", when)
			return patience, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return 0, err
		}
	}
	// Whoever was locked so long ago that nothing known was good any more is not charged on what was known, whether the
	// event has come or not.
	for held := time.Now(); lasts > staleness && time.Since(held) < unheard; {
		o.want(ctx, client, unlucky, when+": before the lock was told", isLocked)
		if err := sleep(ctx, pause); err != nil {
			return 0, err
		}
	}
	release()
	for told := time.Now(); ; {
		got := o.try(ctx, client, unlucky)
		if got == isLocked {
			break
		}
		if got != "" || time.Since(told) > heardWithin {
			o.all.wrong("%s: a customer who was locked is answered with %q, %s after it was told", when, got, time.Since(told))
			break
		}
		if err := sleep(ctx, pause); err != nil {
			return 0, err
		}
	}
	took, err := o.watched.wait(ctx, back, o.quiet)
	if err != nil {
		return 0, err
	}
	o.want(ctx, client, unlucky, when+": when all is well again", isLocked)
	o.wantReplay(ctx, client, early, when+": when all is well again")
	return took, nil
}

// endure walks through the time that auth is away, and looks at how charges are answered.
func (o *outages) endure(ctx context.Context, client paymentsv1.PaymentServiceClient, unlucky string, lasts time.Duration, when string) error {
	const step = 10 * time.Second
	var before int
	for away := time.Duration(0); away < lasts; away += step {
		if err := o.clock.walk(ctx, step); err != nil {
			return err
		}
		so := fmt.Sprintf("%s, after %s", when, away+step)
		known := o.w.customers[int(away/step)%len(o.w.customers)]
		switch {
		case away+step < staleness-uncertain:
			o.want(ctx, client, known, so+": a customer who is known", "")
			o.want(ctx, client, unlucky, so+": one who is known, and of whose lock nobody can tell", "")
		case away+step > staleness:
			if before == 0 {
				before = o.w.Acknowledged(time.Time{}, always())
			}
			o.want(ctx, client, known, so+": a customer who was known", noAuth)
		}
		o.want(ctx, client, o.w.newID(), so+": a customer who is not known", noAuth)
		o.wantReplay(ctx, client, o.w.answered(), so)
	}
	if before > 0 && o.w.Acknowledged(time.Time{}, always()) == before {
		o.all.wrong("%s: nothing was captured, given back or moved while nobody could be charged", when)
	}
	return ctx.Err()
}

// try makes a charge, and returns how it is answered: "" for OK. One that is refused for good is not to be there; one
// that finds no auth is sent again later, as all others.
func (o *outages) try(ctx context.Context, client paymentsv1.PaymentServiceClient, customer string) string {
	c := o.w.askAlone(customer)
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := o.w.send(ctx, client, c)
	if err == nil {
		return ""
	}
	got := reason(err)
	if got == isLocked {
		o.w.refuse(c)
	}
	return got
}

// want makes a charge that is to be answered so.
func (o *outages) want(ctx context.Context, client paymentsv1.PaymentServiceClient, customer, what, want string) {
	if got := o.try(ctx, client, customer); got != want && ctx.Err() == nil {
		o.all.wrong("%s: a charge is answered with %q, and not with %q", what, got, want)
	}
}

// wantReplay sends a charge again that was answered: whoever it was of, and whether auth is there or not, the answer is
// the same.
func (o *outages) wantReplay(ctx context.Context, client paymentsv1.PaymentServiceClient, c *charge, what string) {
	again, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var header metadataOf
	ended := o.w.attempt(c)
	resp, err := client.Charge(again, c.request(), header.option())
	if err = ended(resp.GetPayment(), header.replayed(), err); err == nil && !header.replayed() {
		err = errors.New("not as a replay")
	}
	if err != nil && ctx.Err() == nil {
		o.all.wrong("%s: a charge that was answered is answered anew: %v", what, err)
	}
}

// answered returns a charge that was answered.
func (p *payments) answered() *charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if c := p.charges[p.random.IntN(len(p.charges))]; c.settled {
			return c
		}
	}
}

// refuse notes that a charge was refused for good.
func (p *payments) refuse(c *charge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.refused = true
}
