package faults

import (
	"context"
	"errors"
	"fmt"
	"sync"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// twoReplicas is the name of the scenario.
const twoReplicas = "two replicas"

const (
	// What a customer may be charged in a race, and how much of it one charge takes.
	raceLimit, raceAmount = 1000, 100
	// The callers of each replica in a race, and how often each charges: together more than the limit allows.
	racers, raceCharges = 3, 4
)

// replicas are two payments services on one PostgreSQL. Each decides by what it remembers of the accounts, and must hear
// of what the other has done to them.
type replicas struct {
	*bench
	store store
	p     [2]*process
	w     *payments
	all   *Audit
}

// replicas has two replicas charge the same customers: by turns, so that each is alone for a while and then is not; in a
// race for what a limit leaves; and under load.
func (b *bench) replicas(ctx context.Context) (all Audit, note string, err error) {
	if b.server == nil {
		return all, "", postgres.ErrMissing
	}
	url, err := b.server.Database(ctx)
	if err != nil {
		return all, "", err
	}
	w, ok := b.book(nil).(*payments)
	if !ok {
		return all, "", errors.New("replicas are of payments alone")
	}
	r := &replicas{bench: b, store: store{data: b.fresh("replica-0"), url: url}, w: w, all: &all}
	for i := range r.p {
		if r.p[i], err = b.start(ctx, store{data: b.fresh(fmt.Sprint("replica-", i)), url: url}, false); err != nil {
			return all, "", err
		}
		defer func() { _ = r.p[i].kill() }() // where it went on to the end, it has been stopped
	}
	if err := w.Begin(ctx, r.p[0].conn); err != nil {
		return all, "", err
	}
	cursor, raced := &Cursor{}, 0
	for n := range b.rounds {
		when := fmt.Sprintf("round %d", n+1)
		for front := range r.p {
			r.turns(ctx, front, when)
		}
		if err := b.verify(ctx, r.store); err != nil && ctx.Err() == nil {
			all.wrong("%s: after turns: %v", when, err)
		}
		if len(all.Wrong) > 0 {
			break // what comes after it would only take its time to fail
		}
		r.race(ctx, when)
		raced++
		if err := r.load(ctx); err != nil {
			return all, "", err
		}
		b.settle(ctx, r.p[n%2], w, &all, when)
		all.add(b.audit(ctx, r.p[(n+1)%2], w, always(), cursor, when))
		b.replicaRounds++
	}
	b.order(w, &all, "at the end")
	if err := r.p[1].stop(); err != nil {
		all.wrong("at the end: %v", err)
	}
	b.inspect(ctx, r.p[0], r.store, &all, "at the end")
	return all, fmt.Sprintf("%d races for a limit", raced), ctx.Err()
}

// try calls, and notes what fails: nothing is broken here.
func (r *replicas) try(ctx context.Context, what string, call func(context.Context) error) {
	attempt, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := call(attempt); err != nil && ctx.Err() == nil {
		r.all.wrong("%s: %v", what, err)
	}
}

// turns has one replica charge alone, until nothing but its memory decides, and then the other one do something that
// moves no money, and something that does, of which the first must know at its next charge.
func (r *replicas) turns(ctx context.Context, front int, when string) {
	back := 1 - front
	customer := r.w.newID()
	charge := func(replica int, what string) {
		r.try(ctx, fmt.Sprintf("%s: %s charges %s", when, replicaName(replica), what), func(ctx context.Context) error {
			return r.w.send(ctx, paymentsv1.NewPaymentServiceClient(r.p[replica].conn), r.w.askOf(plain, customer))
		})
	}
	for range 4 {
		charge(front, "alone")
	}
	r.open(ctx, back, r.w.newID(), nil, when)
	charge(front, "after the other has opened an account")
	for range 2 {
		charge(back, "the same customer")
		charge(front, "the same customer by turns")
	}
}

func replicaName(replica int) string { return fmt.Sprint("replica ", replica+1) }

// open opens the account of a customer, with a limit where there is one.
func (r *replicas) open(ctx context.Context, replica int, customer string, limit *int64, when string) {
	r.try(ctx, fmt.Sprintf("%s: %s opens an account", when, replicaName(replica)), func(ctx context.Context) error {
		_, err := paymentsv1.NewLedgerServiceClient(r.p[replica].conn).OpenAccount(ctx, &paymentsv1.OpenAccountRequest{
			Owner: customer, Kind: paymentsv1.AccountKind_ACCOUNT_KIND_CUSTOMER, Currency: currency, OverdraftLimitCents: limit,
			IdempotencyKey: r.w.newID(),
		})
		return err
	})
}

// race has both replicas charge a customer until the limit of the account is reached, and further: as many charges come
// through as it allows, neither more nor less.
func (r *replicas) race(ctx context.Context, when string) {
	customer, limit := r.w.newID(), int64(raceLimit)
	r.open(ctx, 0, customer, &limit, when)
	var (
		mu                sync.Mutex
		through, declined int
		failed            []error
		callers           sync.WaitGroup
	)
	for replica := range r.p {
		client := paymentsv1.NewPaymentServiceClient(r.p[replica].conn)
		for range racers {
			callers.Go(func() {
				for range raceCharges {
					key := r.w.newID()
					attempt, cancel := context.WithTimeout(ctx, callTime)
					resp, err := client.Charge(attempt, &paymentsv1.ChargeRequest{
						OrderId: marker + key, AmountCents: raceAmount, Currency: currency, IdempotencyKey: key, CustomerId: customer,
					})
					cancel()
					mu.Lock()
					switch {
					case err != nil:
						failed = append(failed, err)
					case resp.GetPayment().GetDeclineCode() == paymentsv1.DeclineCode_DECLINE_CODE_INSUFFICIENT_FUNDS:
						declined++
					default:
						through++
					}
					mu.Unlock()
				}
			})
		}
	}
	callers.Wait()
	if ctx.Err() != nil {
		return
	}
	if err := errors.Join(failed...); err != nil {
		r.all.wrong("%s: a race for a limit: %v", when, err)
	} else if through != raceLimit/raceAmount || declined == 0 {
		r.all.wrong("%s: of charges of %d each, %d came through and %d were declined, where the limit is %d", when, raceAmount, through, declined, raceLimit)
	}
}

// load uses both at once.
func (r *replicas) load(ctx context.Context) error {
	var both sync.WaitGroup
	for _, p := range r.p {
		both.Go(func() {
			// All that it returns is that ctx has ended, which is looked at below.
			_ = under(ctx, r.w, p, func(ctx context.Context) error { return sleep(ctx, r.recorded) })
		})
	}
	both.Wait()
	return ctx.Err()
}
