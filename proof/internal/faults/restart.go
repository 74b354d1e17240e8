package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// outage is how long PostgreSQL is away, at least.
const outage = 300 * time.Millisecond

// restarted is a service on a PostgreSQL that goes away and comes back, while the service goes on.
type restarted struct {
	*bench
	store   store
	p       *process
	w       Workload
	cursor  *Cursor
	watched *healing
	refused *answers
	times   int
}

// newRestarted starts the service on a new database.
func (b *bench) newRestarted(ctx context.Context, name string) (*restarted, error) {
	if b.server == nil {
		return nil, postgres.ErrMissing
	}
	url, err := b.server.Database(ctx)
	if err != nil {
		return nil, err
	}
	r := &restarted{
		bench: b, store: store{data: b.fresh(name), url: url}, cursor: &Cursor{},
		watched: &healing{flying: make(map[int]time.Time)}, refused: &answers{counts: map[string]int{}, on: true},
	}
	r.w = b.book(func() func(error) {
		ended, told := r.watched.calls(), r.refused.calls()
		return func(err error) { ended(err); told(err) }
	})
	if r.p, err = b.start(ctx, r.store, false); err != nil {
		return nil, err
	}
	if err := r.w.Begin(ctx, r.p.conn); err != nil {
		return nil, errors.Join(err, r.p.kill())
	}
	return r, nil
}

// once takes PostgreSQL away and brings it back: by turns as an administrator does and as a crash does. It returns when
// the service has healed: when from then on every call succeeds.
func (r *restarted) once(ctx context.Context) error {
	end := r.server.Stop
	if r.times%2 == 1 {
		end = r.server.Kill
	}
	r.times++
	if err := end(); err != nil {
		return err
	}
	if err := sleep(ctx, outage); err != nil {
		return err
	}
	if err := r.server.Restart(ctx); err != nil {
		return err
	}
	took, err := r.watched.wait(ctx, time.Now(), r.quiet)
	r.heal = append(r.heal, took.Seconds())
	return err
}

// check sends again what has no answer and audits.
func (r *restarted) check(ctx context.Context, all *Audit, when string) {
	r.settle(ctx, r.p, r.w, all, when)
	all.add(r.audit(ctx, r.p, r.w, always(), r.cursor, when))
}

// finish holds all that was answered against one order, stops the service and has it check its data.
func (r *restarted) finish(ctx context.Context, all *Audit) {
	r.order(r.w, all, "at the end")
	r.inspect(ctx, r.p, r.store, all, "at the end")
	// A server that went away during a COMMIT leaves its outcome open; one that is not there leaves nothing.
	for _, other := range r.refused.others("Unavailable OUTCOME_UNKNOWN", "Unavailable STORAGE_UNAVAILABLE", "Unavailable CONSUMER_TOO_SLOW", "ResourceExhausted CONSUMER_TOO_SLOW",
		"DeadlineExceeded", "DeadlineExceeded DEADLINE_EXCEEDED") { // callers who wait for less time than it takes
		all.wrong("calls while PostgreSQL is away: %s", other)
	}
}

// restartPostgres takes PostgreSQL away under load and brings it back, both ways, and audits after each time.
func (b *bench) restartPostgres(ctx context.Context) (all Audit, note string, err error) {
	r, err := b.newRestarted(ctx, "restart")
	if err != nil {
		return all, "", err
	}
	defer func() { _ = r.p.kill() }() // where it went on to the end, it has been stopped
	for range 2 * b.effort.restarts {
		if err := under(ctx, r.w, r.p, func(ctx context.Context) error {
			if err := sleep(ctx, 200*time.Millisecond+time.Duration(b.random.Int64N(int64(200*time.Millisecond)))); err != nil {
				return err
			}
			return r.once(ctx)
		}); err != nil {
			return all, "", err
		}
		r.check(ctx, &all, fmt.Sprintf("restart %d", r.times))
	}
	r.finish(ctx, &all)
	return all, fmt.Sprintf("%d restarts; %s", r.times, r.refused), ctx.Err()
}

// restartsOfAStore is how often a database sees its server restarted at a pace, so that an audit does not take ever
// longer.
const restartsOfAStore = 3

// restartAtPace takes PostgreSQL away and brings it back again and again, under a load that never ends. Where the
// service takes longer than the pace to heal, the next time waits for it.
func (b *bench) restartAtPace(ctx context.Context) (all Audit, note string, err error) {
	if b.server == nil {
		return all, "", postgres.ErrMissing
	}
	var refused []string
	for n := 0; n < b.effort.paced; n += restartsOfAStore {
		r, err := b.newRestarted(ctx, fmt.Sprintf("paced-%d", n))
		if err != nil {
			return all, "", err
		}
		defer func() { _ = r.p.kill() }() // where it went on to the end, it has been stopped
		if err := under(ctx, r.w, r.p, func(ctx context.Context) error {
			begun := time.Now()
			for k := range min(restartsOfAStore, b.effort.paced-n) {
				if err := sleep(ctx, time.Until(begun.Add(time.Duration(k+1)*b.pace))); err != nil {
					return err
				}
				if err := r.once(ctx); err != nil {
					return err
				}
				b.pacedRestarts++
			}
			return nil
		}); err != nil {
			return all, "", err
		}
		r.check(ctx, &all, fmt.Sprintf("after restart %d", b.pacedRestarts))
		r.finish(ctx, &all)
		if calls := r.refused.String(); calls != "" {
			refused = append(refused, calls)
		}
	}
	return all, fmt.Sprintf("%d restarts, one each %s; %s", b.pacedRestarts, b.pace, strings.Join(refused, "; ")), ctx.Err()
}

// slow is how long a call takes that is in trouble: it waits for a connection, say.
const slow = time.Second

// healing tells when calls were in trouble last.
type healing struct {
	mu     sync.Mutex
	next   int
	flying map[int]time.Time // when the calls began that have not ended
	ended  []call
}

// call is one that has ended.
type call struct {
	begun, ended time.Time
	failed       bool
}

// calls implements Calls.
func (h *healing) calls() func(error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := h.next
	h.next++
	h.flying[key] = time.Now()
	return func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended = append(h.ended, call{h.flying[key], time.Now(), err != nil})
		delete(h.flying, key)
	}
}

// wait waits until no call has been in trouble for a while, at most for patience, and returns how long after back that began. In
// trouble are calls that fail, that had begun before back, and that are slow.
func (h *healing) wait(ctx context.Context, back time.Time, quiet time.Duration) (time.Duration, error) {
	for {
		if err := sleep(ctx, pause); err != nil {
			return 0, err
		}
		now := time.Now()
		trouble := h.trouble(back, now)
		if now.Sub(trouble) >= quiet || now.Sub(back) > patience {
			return trouble.Sub(back), nil
		}
	}
}

func (h *healing) trouble(back, now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := back
	for _, c := range h.ended {
		if c.ended.After(last) && (c.failed || c.begun.Before(back) || c.ended.Sub(c.begun) > slow) {
			last = c.ended
		}
	}
	for _, begun := range h.flying {
		if begun.Before(back) || now.Sub(begun) > slow {
			last = now
		}
	}
	return last
}
