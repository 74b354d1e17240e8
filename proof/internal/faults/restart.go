package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// outage is how long PostgreSQL is away, at least.
const outage = 300 * time.Millisecond

// restartPostgres takes PostgreSQL away under load and brings it back: once as an administrator does, once as a crash does. The
// service goes on all the time. It has healed when from then on every call succeeds.
func (b *bench) restartPostgres(ctx context.Context) (all Audit, note string, err error) {
	if b.server == nil {
		return all, "", postgres.ErrMissing
	}
	url, err := b.server.Database(ctx)
	if err != nil {
		return all, "", err
	}
	s := store{data: b.fresh("restart"), url: url}
	watched := &healing{flying: make(map[int]time.Time)}
	refused := &answers{counts: map[string]int{}, on: true}
	w, cursor := b.book(func() func(error) {
		ended, told := watched.calls(), refused.calls()
		return func(err error) { ended(err); told(err) }
	}), &Cursor{}
	p, err := b.start(ctx, s, false)
	if err != nil {
		return all, "", err
	}
	defer func() { _ = p.kill() }() // where it went on to the end, it has been stopped
	if err := w.Begin(ctx, p.conn); err != nil {
		return all, "", err
	}
	for n := range 2 * b.effort.restarts {
		how, end := "stop", b.server.Stop
		if n%2 == 1 {
			how, end = "kill", b.server.Kill
		}
		when := fmt.Sprintf("%s %d", how, n/2+1)
		var took time.Duration
		if err := under(ctx, w, p, func(ctx context.Context) error {
			if err := sleep(ctx, 200*time.Millisecond+time.Duration(b.random.Int64N(int64(200*time.Millisecond)))); err != nil {
				return err
			}
			if err := end(); err != nil {
				return err
			}
			if err := sleep(ctx, outage); err != nil {
				return err
			}
			if err := b.server.Restart(ctx); err != nil {
				return err
			}
			var err error
			took, err = watched.wait(ctx, time.Now(), b.quiet)
			return err
		}); err != nil {
			return all, "", err
		}
		b.heal = append(b.heal, took.Seconds())
		b.settle(ctx, p, w, &all, when)
		all.add(b.audit(ctx, p, w, always(), cursor, when))
	}
	b.order(w, &all, "at the end")
	b.inspect(ctx, p, s, &all, "at the end")
	// A server that went away during a COMMIT leaves its outcome open; one that is not there leaves nothing.
	for _, other := range refused.others("Unavailable OUTCOME_UNKNOWN", "Unavailable STORAGE_UNAVAILABLE", "Unavailable CONSUMER_TOO_SLOW", "ResourceExhausted CONSUMER_TOO_SLOW",
		"DeadlineExceeded", "DeadlineExceeded DEADLINE_EXCEEDED") { // callers who wait for less time than it takes
		all.wrong("calls while PostgreSQL is away: %s", other)
	}
	return all, fmt.Sprintf("%d restarts; %s", 2*b.effort.restarts, refused), ctx.Err()
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
