package app

import (
	"context"
	"time"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// How often the service looks for what its time has made to do.
const (
	releaseEvery = 5 * time.Second // of authorizations that are over
	recoverEvery = 2 * time.Second // of processors that have not answered
	forgetEvery  = time.Minute     // of idempotency keys
)

// tend does, while the service runs, what nobody calls for.
func tend(h *kit.Host, service *payments.Service, keyRetention time.Duration) {
	for _, t := range []struct {
		what  string
		every time.Duration
		do    func(context.Context) (int, error)
	}{
		{"pending transfers released", releaseEvery, service.Release},
		{"processors asked again", recoverEvery, service.Recover},
		{"idempotency keys forgotten", forgetEvery, func(ctx context.Context) (int, error) { return service.Forget(ctx, keyRetention) }},
	} {
		h.Beside(func(ctx context.Context) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-h.Clock.After(t.every):
				}
				done, err := untilNone(ctx, t.do)
				if err != nil && ctx.Err() == nil {
					h.Log.Warn("not all could be done", "what", t.what, "done", done, "cause", err)
				} else if done > 0 {
					h.Log.Info(t.what, "count", done)
				}
			}
		})
	}
}

// untilNone calls do until it has done nothing, or not all, and returns how much it has done in all.
func untilNone(ctx context.Context, do func(context.Context) (int, error)) (done int, err error) {
	for n := 1; n > 0 && err == nil && ctx.Err() == nil; done += n {
		n, err = do(ctx)
	}
	return done, err
}
