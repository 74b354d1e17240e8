package faults

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// A store lives for so many kills, so that an audit does not take ever longer.
const killsOfAStore = 5

// A kill comes between these times after the load began.
const (
	soonest = 5 * time.Millisecond
	latest  = 200 * time.Millisecond
)

func (b *bench) killSQLite(ctx context.Context) (Audit, string, error) {
	return b.killAll(ctx, func(n int) (store, error) { return store{data: b.fresh(fmt.Sprintf("kill-%d", n))}, nil })
}

func (b *bench) killPostgres(ctx context.Context) (Audit, string, error) {
	if b.server == nil {
		return Audit{}, "", postgres.ErrMissing
	}
	return b.killAll(ctx, func(n int) (store, error) {
		url, err := b.server.Database(ctx)
		return store{data: b.fresh(fmt.Sprintf("kill-postgres-%d", n)), url: url}, err
	})
}

// killAll kills the service as often as asked for, on one store after the other.
func (b *bench) killAll(ctx context.Context, next func(int) (store, error)) (all Audit, note string, err error) {
	for n := 0; n*killsOfAStore < b.effort.kills; n++ {
		s, err := next(n)
		if err != nil {
			return all, "", err
		}
		a, err := b.killSome(ctx, s, min(killsOfAStore, b.effort.kills-n*killsOfAStore))
		all.add(a)
		if err != nil {
			return all, "", err
		}
	}
	return all, fmt.Sprintf("%d kills", b.effort.kills), nil
}

// killSome kills the service on one store, so many times. After each, everything that was in flight is sent again.
func (b *bench) killSome(ctx context.Context, s store, times int) (all Audit, err error) {
	w, cursor := b.book(nil), &Cursor{}
	p, err := b.start(ctx, s, false)
	if err != nil {
		return all, err
	}
	defer func() { _ = p.kill() }() // where it went on to the end, it has been stopped
	if err := w.Begin(ctx, p.conn); err != nil {
		return all, err
	}
	for n := range times {
		when := fmt.Sprintf("%s, kill %d", s.engine(), n+1)
		moment := soonest + time.Duration(b.random.Int64N(int64(latest-soonest)))
		if err := under(ctx, w, p, func(ctx context.Context) error {
			if err := sleep(ctx, moment); err != nil {
				return err
			}
			return p.kill()
		}); err != nil {
			return all, err
		}
		b.kills++
		if p, err = b.start(ctx, s, false); err != nil {
			return all, fmt.Errorf("after %s: %w", when, err)
		}
		// First what is there by itself, then what is there when all has been sent again. Only the second reads to the end, so that
		// what an audit counts is counted once.
		before := b.audit(ctx, p, w, always(), cursor, when)
		b.settle(ctx, p, w, &before, when)
		all.add(before)
	}
	after := b.audit(ctx, p, w, always(), cursor, s.engine()+", at the end")
	after.Acknowledged = 0 // counted already
	all.add(after)
	b.order(w, &all, s.engine()+", at the end")
	b.inspect(ctx, p, s, &all, s.engine()+", at the end")
	return all, ctx.Err()
}
