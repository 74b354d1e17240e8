package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Run serves the subscriptions until ctx ends, and then returns nil: it reads what was committed and hands it to
// those who want it, and removes what is no longer retained. Subscriptions end with ErrStopped when it returns. It returns an
// error when the log cannot be read or was run before, and sqldb.ErrStorageFailed when the storage failed during a commit:
// what is on the disk is known again when the database is opened anew, so the process should end. While PostgreSQL cannot be
// reached, or has no room left on its disk, it goes on trying.
//
// On PostgreSQL every process that appends runs its log, also without subscribers: events get their numbers by it.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.running || l.stopped {
		l.mu.Unlock()
		return errors.New("the event log was run before")
	}
	l.running = true
	l.mu.Unlock()
	defer l.stop()

	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	failed := make(chan error, 2)
	run := func(what string, fn func(context.Context) error) {
		beside.Go(func() {
			if err := fn(ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
				cancel()
			}
		})
	}
	if l.shared {
		run("listen for events", func(ctx context.Context) error { return l.db.Listen(ctx, channel, l.noticed.signal) })
	}
	if l.keep != (Retention{}) {
		run("retention of events", l.retain)
	}
	err := l.follow(ctx)
	cancel()
	beside.Wait()
	if err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// follow serves until ctx ends.
func (l *Log) follow(ctx context.Context) error {
	poll := l.clock.After(l.poll)
	for number := true; ; {
		err := l.serve(ctx, number)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !l.passing(err):
			return fmt.Errorf("read the event log: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.db.Failed():
			return sqldb.ErrStorageFailed
		case <-l.appended:
			number = true
		case <-l.noticed:
			number = err != nil
		case <-poll:
			poll = l.clock.After(l.poll)
			number = true
		}
	}
}

// passing says whether an error may be gone when the log is read, or written, again.
func (l *Log) passing(err error) bool {
	return sqldb.IsBusy(err) || errors.Is(err, sqldb.ErrUnavailable) || errors.Is(err, sqldb.ErrOutcomeUnknown) || errors.Is(err, sqldb.ErrStorageFull)
}

// serve hands out what has been committed, until there is no more or nobody wants it. With number it first gives numbers to
// what has none.
func (l *Log) serve(ctx context.Context, number bool) error {
	if number && l.inbox != nil {
		if err := l.inbox.order(ctx); err != nil {
			return err
		}
	}
	for {
		l.mu.Lock()
		after, wanted := l.last, len(l.live) > 0
		l.mu.Unlock()
		if !wanted {
			return l.look(ctx)
		}
		p, err := l.readPage(ctx, after)
		if err != nil {
			return err
		}
		l.handOut(p)
		if p.atHead {
			return nil
		}
	}
}
