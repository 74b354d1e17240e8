package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// traced returns the program that makes something of the syncs of a store's files, and writes them down nowhere.
func (b *bench) traced(s store, inject string) []string {
	// Without --seccomp-bpf: with it no signal is sent.
	args := []string{"strace", "-f", "-qq", "-e", "signal=none", "-e", "trace=fsync,fdatasync", "-e", inject, "-o", "/dev/null", "-P", s.data}
	for _, f := range b.service.Files {
		args = append(args, "-P", filepath.Join(s.data, f))
	}
	return args
}

// unreached is after which time a service is killed that has not come to the sync at which it is to be.
const unreached = 5 * time.Second

// killAtSyncs kills the service with SIGKILL as it asks for a sync, another one each time: what is to be synced has been written, and
// nobody has been told.
func (b *bench) killAtSyncs(ctx context.Context) (all Audit, note string, err error) {
	if err := b.canTrace(); err != nil {
		return all, "", err
	}
	early, late := 0, 0
	for n := 0; n < b.effort.syncKills; n += killsOfAStore {
		s := store{data: b.fresh(fmt.Sprintf("sync-kill-%d", n))}
		w, cursor := b.book(nil), &Cursor{}
		if err := b.begin(ctx, s, w); err != nil {
			return all, "", err
		}
		for k := range min(killsOfAStore, b.effort.syncKills-n) {
			when := fmt.Sprintf("kill at sync %d", n+k+1)
			reached, begun, err := b.killAtSync(ctx, s, w, 1+b.random.IntN(12))
			if err != nil {
				return all, "", err
			}
			switch {
			case !begun:
				early++
				b.syncKills++
			case reached:
				b.syncKills++
			default:
				late++ // it is no kill at a sync, and counts for none
			}
			if err := b.after(ctx, s, w, cursor, &all, when); err != nil {
				return all, "", err
			}
		}
		b.order(w, &all, fmt.Sprintf("kills at syncs %d and after", n+1))
	}
	return all, fmt.Sprintf("%d kills, %d of them before the service was ready; %d more with no sync in sight", b.syncKills, early, late), ctx.Err()
}

// begin makes a store and lets the workload begin on it.
func (b *bench) begin(ctx context.Context, s store, w Workload) error {
	p, err := b.start(ctx, s, false)
	if err != nil {
		return err
	}
	if err := w.Begin(ctx, p.conn); err != nil {
		return errors.Join(err, p.kill())
	}
	return p.stop()
}

// killAtSync starts the service, loads it, and has it killed at its sync of that number. It says whether that was what killed it, and
// whether the service had become ready.
func (b *bench) killAtSync(ctx context.Context, s store, w Workload, number int) (reached, begun bool, err error) {
	// strace counts for each thread, and the syncs of a service are spread over some.
	p, err := b.start(ctx, s, true, b.traced(s, "inject=fsync,fdatasync:signal=KILL:when="+strconv.Itoa(number))...)
	var ended *endedError
	if errors.As(err, &ended) {
		return true, false, nil
	}
	if err != nil {
		return false, false, err
	}
	err = under(ctx, w, p, func(ctx context.Context) error {
		select {
		case <-p.ended:
			reached = true
		case <-time.After(unreached):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	return reached, true, errors.Join(err, p.kill())
}

// after starts the service on a store that it was killed on, audits it, sends again what has no answer, and audits it again.
func (b *bench) after(ctx context.Context, s store, w Workload, cursor *Cursor, all *Audit, when string) error {
	p, err := b.start(ctx, s, false)
	if err != nil {
		return fmt.Errorf("after %s: %w", when, err)
	}
	before := b.audit(ctx, p, w, always(), cursor, when)
	b.settle(ctx, p, w, &before, when)
	all.add(before)
	settled := b.audit(ctx, p, w, always(), cursor, when+", all sent again")
	settled.Acknowledged = 0 // counted already
	all.add(settled)
	b.inspect(ctx, p, s, all, when)
	return ctx.Err()
}

// How long a slow sync takes: a while; and longer than callers wait.
const (
	slowSync    = 100 * time.Millisecond
	slowestSync = 4 * time.Second
)

// slowSyncs lets every sync take a while, and every second time some of them longer than callers wait. The service must go on, and is
// then killed: what was acknowledged is there, and of what has no answer the same key tells the truth.
func (b *bench) slowSyncs(ctx context.Context) (all Audit, note string, err error) {
	if err := b.canTrace(); err != nil {
		return all, "", err
	}
	refused := &answers{counts: map[string]int{}, on: true}
	for n := range b.effort.slowSyncs {
		when := fmt.Sprintf("slow syncs %d", n+1)
		s := store{data: b.fresh(fmt.Sprintf("slow-%d", n))}
		w, cursor := b.book(refused.calls), &Cursor{}
		if err := b.begin(ctx, s, w); err != nil {
			return all, "", err
		}
		inject := fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d", slowSync.Microseconds())
		lasts := b.recorded
		if n%2 == 0 {
			inject = fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d:when=%d+20", slowestSync.Microseconds(), 3+b.random.IntN(10))
			lasts += 2 * slowestSync
		}
		p, err := b.start(ctx, s, true, b.traced(s, inject)...)
		if err != nil {
			return all, "", err
		}
		had := w.Acknowledged(time.Time{}, always())
		if err := under(ctx, w, p, func(ctx context.Context) error {
			if err := sleep(ctx, lasts); err != nil {
				return err
			}
			return p.kill()
		}); err != nil {
			return all, "", errors.Join(err, p.kill())
		}
		if w.Acknowledged(time.Time{}, always()) == had {
			all.wrong("%s: nothing was acknowledged within %s", when, lasts)
		}
		if err := b.after(ctx, s, w, cursor, &all, when); err != nil {
			return all, "", err
		}
		b.order(w, &all, when)
	}
	// Who does not want to wait any longer does not know what becomes of the call; who came later may not be let in.
	for _, other := range refused.others("DeadlineExceeded", "DeadlineExceeded DEADLINE_EXCEEDED", "Unavailable OUTCOME_UNKNOWN", "ResourceExhausted OVERLOADED") {
		all.wrong("calls while syncs are slow: %s", other)
	}
	return all, fmt.Sprintf("%d times; %s", b.effort.slowSyncs, refused), ctx.Err()
}
