package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// outlasts is how long a standby is dead at least: longer than any call waits and any transaction may take, so that the wait of a commit
// has been cancelled and what it wrote can be seen by others.
const outlasts = 13 * time.Second

// askedAgain is how long all that has no answer is sent again while the standby is dead: long enough for what was begun before it to
// have been given up.
const askedAgain = outlasts

// otherWay is how long it is sent again when the service takes another way to the answer.
const otherWay = 3 * time.Second

// pair is a PostgreSQL with a standby that it waits for, and a service that knows both.
type pair struct {
	*bench
	primary, standby *postgres.Server
	store            store
	p                *process
	w                Workload
	cursor           *Cursor
	watched          *healing
	refused          *answers
}

// newPair starts both servers and the service.
func (b *bench) newPair(ctx context.Context, name string) (_ *pair, err error) {
	if b.server == nil {
		return nil, postgres.ErrMissing
	}
	r := &pair{bench: b, cursor: &Cursor{}, watched: &healing{flying: make(map[int]time.Time)}, refused: &answers{counts: map[string]int{}, on: true}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.primary, err = postgres.Start(ctx, "max_connections=60"); err != nil {
		return nil, err
	}
	url, err := r.primary.Database(ctx)
	if err != nil {
		return nil, err
	}
	if r.standby, err = r.primary.Standby(ctx); err != nil {
		return nil, err
	}
	if url, err = r.primary.Pair(url, r.standby); err != nil {
		return nil, err
	}
	if err := r.primary.WaitForStandby(ctx, true); err != nil {
		return nil, err
	}
	r.store = store{data: b.fresh(name), url: url}
	r.w = b.book(func() func(error) {
		ended, told := r.watched.calls(), r.refused.calls()
		return func(err error) { ended(err); told(err) }
	})
	if r.p, err = b.start(ctx, r.store, false); err != nil {
		return nil, err
	}
	return r, r.w.Begin(ctx, r.p.conn)
}

// close ends all of it; where all went well, the service has been stopped.
func (r *pair) close() (err error) {
	if r.p != nil {
		_ = r.p.kill()
	}
	for _, s := range []*postgres.Server{r.primary, r.standby} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return err
}

// promote makes the standby the primary, whose old one has ended.
func (r *pair) promote(ctx context.Context) error {
	if err := r.standby.Promote(ctx); err != nil {
		return err
	}
	r.primary, r.standby = r.standby, r.primary
	return nil
}

// killPrimaries kills the primary under load and promotes its standby, to and fro, while the service goes on.
func (b *bench) killPrimaries(ctx context.Context) (all Audit, note string, err error) {
	r, err := b.newPair(ctx, "failover")
	if err != nil {
		return all, "", err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for n := range b.failovers {
		when := fmt.Sprintf("failover %d", n+1)
		if n > 0 {
			if err := errors.Join(r.standby.Follow(ctx, r.primary), r.primary.WaitForStandby(ctx, true)); err != nil {
				return all, "", err
			}
		}
		var took time.Duration
		if err := under(ctx, r.w, r.p, func(ctx context.Context) error {
			if err := sleep(ctx, 300*time.Millisecond+time.Duration(b.random.Int64N(int64(300*time.Millisecond)))); err != nil {
				return err
			}
			if err := r.primary.Kill(); err != nil {
				return err
			}
			if err := r.promote(ctx); err != nil {
				return err
			}
			var err error
			took, err = r.watched.wait(ctx, time.Now(), b.quiet)
			return err
		}); err != nil {
			return all, "", err
		}
		b.failover = append(b.failover, took.Seconds())
		b.settle(ctx, r.p, r.w, &all, when)
		all.add(b.audit(ctx, r.p, r.w, always(), r.cursor, when))
	}
	b.order(r.w, &all, "at the end")
	b.inspect(ctx, r.p, r.store, &all, "at the end")
	for _, other := range r.refused.others("DeadlineExceeded", "Unavailable OUTCOME_UNKNOWN", "Unavailable STORAGE_UNAVAILABLE", "DeadlineExceeded DEADLINE_EXCEEDED",
		"Unavailable CONSUMER_TOO_SLOW", "ResourceExhausted CONSUMER_TOO_SLOW") {
		all.wrong("calls while the primary changes: %s", other)
	}
	return all, fmt.Sprintf("%d times; %s", b.failovers, r.refused), ctx.Err()
}

// killStandby kills the standby under load. Nothing may be acknowledged then: it would be on one disk alone. At last the primary is
// killed too, and the standby promoted as it was: nothing that was acknowledged may be missing there. Sent again with the same keys,
// everything counts once.
func (b *bench) killStandby(ctx context.Context) (all Audit, note string, err error) {
	r, err := b.newPair(ctx, "standby")
	if err != nil {
		return all, "", err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	var before, after int
	if err := under(ctx, r.w, r.p, func(ctx context.Context) error {
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		if err := r.standby.Kill(); err != nil {
			return err
		}
		// A commit whose wait is cancelled can be read from then on, by whoever watches too, and is on one disk alone.
		r.w.AnswersAlone(true)
		// An answer to what the standby had may be on its way.
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		before = r.w.Acknowledged(time.Time{}, always())
		return sleep(ctx, b.alone)
	}); err != nil {
		return all, "", err
	}
	// Who asks again and again with nobody beside, whose write would have to wait, gets no other answer, even of what
	// can be read.
	r.insist(ctx, askedAgain)
	if b.service.Alone != nil {
		b.service.Alone(true)
		r.insist(ctx, otherWay)
		// A build with a mistake is asked until it shows: whatever it cannot answer takes a caller's whole time.
		for begun := time.Now(); len(b.edits) > 0 && r.w.Acknowledged(time.Time{}, always()) == before && time.Since(begun) < patience; {
			r.insist(ctx, otherWay)
		}
		b.service.Alone(false)
	}
	after = r.w.Acknowledged(time.Time{}, always())
	if err := r.primary.Kill(); err != nil {
		return all, "", err
	}
	b.told += after - before
	r.w.AnswersAlone(false)
	if err := r.standby.Restart(ctx); err != nil {
		return all, "", err
	}
	if err := r.promote(ctx); err != nil {
		return all, "", err
	}
	if err := b.answering(ctx, r); err != nil {
		all.wrong("after the standby was promoted: %v", err)
	}
	all.add(b.audit(ctx, r.p, r.w, always(), r.cursor, "the standby alone"))
	b.settle(ctx, r.p, r.w, &all, "the standby alone")
	settled := b.audit(ctx, r.p, r.w, always(), r.cursor, "the standby alone, all sent again")
	settled.Acknowledged = 0 // counted already
	all.add(settled)
	b.order(r.w, &all, "the standby alone")
	b.inspect(ctx, r.p, r.store, &all, "the standby alone")
	return all, fmt.Sprintf("dead for %s, in which %d were acknowledged; %s", b.alone, after-before, r.refused), ctx.Err()
}

// insist sends all that has no answer again and again, for so long. It is not to succeed.
func (r *pair) insist(ctx context.Context, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	for ctx.Err() == nil {
		r.w.Again(ctx, r.p.conn)
		_ = sleep(ctx, pause) // the loop looks at its context
	}
}

// answering waits until the service reads and writes again.
func (b *bench) answering(ctx context.Context, r *pair) error {
	for begun := time.Now(); ; {
		err := r.w.Probe(ctx, r.p.conn)
		if err == nil || time.Since(begun) > patience {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}
