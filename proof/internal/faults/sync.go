package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/powercut"
)

// died is within which time of the failed sync the service must have ended.
const died = 10 * time.Second

// failedSyncs lets a sync fail with EIO, another one each time, under load. The service must stop by itself and say that it failed;
// what it had acknowledged must be there, on the disk as the service left it, and on one that has lost what the failed sync
// was to make durable.
func (b *bench) failedSyncs(ctx context.Context) (all Audit, note string, err error) {
	if err := b.canTrace(); err != nil {
		return all, "", err
	}
	refused := &answers{counts: map[string]int{}, on: true}
	early := 0
	for n := range b.syncs {
		a, started, err := b.failOnce(ctx, n, refused)
		all.add(a)
		if err != nil {
			return all, "", err
		}
		if !started {
			early++
		}
	}
	// What a caller is told: that nobody knows what became of it, or that nothing is written any more.
	for _, other := range refused.others("Unavailable OUTCOME_UNKNOWN", "Unavailable STORAGE_FAILED", "Unavailable DRAINING", "Unavailable STORAGE_CLOSED") {
		all.wrong("writes after a failed sync: %s", other)
	}
	return all, fmt.Sprintf("%d failed syncs, %d of them before the service was ready; %s", b.syncs, early, refused), ctx.Err()
}

func (b *bench) failOnce(ctx context.Context, n int, refused *answers) (all Audit, started bool, err error) {
	when := fmt.Sprintf("failed sync %d", n+1)
	w := b.book(refused.calls)
	r, err := b.prepare(ctx, w, fmt.Sprintf("sync-%d", n))
	if err != nil {
		return all, false, err
	}
	// strace counts for each thread, and the syncs of a service are spread over some.
	inject := fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d", 1+b.random.IntN(8))
	p, err := b.start(ctx, r.store, true, r.command("-e", inject)...)
	var ended *endedError
	switch {
	case errors.As(err, &ended):
	case err != nil:
		return all, false, err
	default:
		started = true
		defer func() { _ = p.kill() }() // it should have ended
		if err := under(ctx, w, p, func(ctx context.Context) error {
			select {
			case <-p.ended:
			case <-time.After(died):
				all.wrong("%s (%s): the service goes on", when, inject)
			case <-ctx.Done():
			}
			return ctx.Err()
		}); err != nil {
			return all, started, err
		}
		if err := p.kill(); err == nil && p.cmd.ProcessState.ExitCode() == 0 {
			all.wrong("%s (%s): the service ended as if nothing had happened", when, inject)
		}
	}
	recording, err := r.read()
	if err != nil {
		return all, started, err
	}
	// The disk that has lost what no sync had answered for is made first: the service that is started then changes the other.
	d, err := powercut.Load(r.before, b.service.Volatile)
	if err != nil {
		return all, started, err
	}
	if err := d.At(r.store.data).Play(recording, 0, recording.Events()); err != nil {
		return all, started, err
	}
	lost := store{data: r.store.data + "-lost"}
	if err := d.WriteTo(lost.data, powercut.Lost, b.random); err != nil {
		return all, started, err
	}
	a := b.reopen(ctx, lost, w, always(), when+", unsynced data lost")
	a.Acknowledged = 0 // the same is counted below
	all.add(a)
	all.add(b.reopen(ctx, r.store, w, always(), when))
	return all, started, errors.Join(os.RemoveAll(r.dir), ctx.Err())
}

// reopen starts the service on what is left of a store, and audits it. A service that does not start has lost all.
func (b *bench) reopen(ctx context.Context, s store, w Workload, by time.Time, when string) (a Audit) {
	p, err := b.start(ctx, s, false)
	if err != nil {
		if ctx.Err() == nil {
			a.Acknowledged = w.Acknowledged(time.Time{}, by)
			a.Lost = a.Acknowledged
			a.wrong("%s: %v", when, err)
		}
		return a
	}
	if w.Acknowledged(time.Time{}, by) > 0 {
		a = b.audit(ctx, p, w, by, nil, when)
	}
	b.inspect(ctx, p, s, &a, when)
	return a
}

// canTrace returns ErrCannot where strace is not there, or not allowed.
func (b *bench) canTrace() error {
	if out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: strace: %w: %s", ErrCannot, err, out)
	}
	return nil
}
