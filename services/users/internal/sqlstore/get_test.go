package sqlstore

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func TestManyWhoGetAtOnceEachGetTheirOwn(t *testing.T) {
	for name, options := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := running(t, options(t))
			const there, callers, each = 40, 16, 50
			fill(t, s, 0, there)
			var group sync.WaitGroup
			for c := range callers {
				group.Go(func() {
					for i := range each {
						n := (c*7 + i*3) % (there + 5)
						want := person(n).User
						ctx, cancel := context.WithCancel(t.Context())
						if i%10 == 9 {
							go cancel()
						}
						got, err := s.Get(ctx, want.ID)
						switch {
						case errors.Is(err, context.Canceled) && ctx.Err() != nil:
						case n >= there:
							if !errors.Is(err, users.ErrNotFound) {
								t.Errorf("nobody: %v", err)
							}
						case err != nil || got.ID != want.ID || got.Email != want.Email:
							t.Errorf("asked for %s, got %s, %v", want.ID, got.ID, err)
						}
						cancel()
					}
				})
			}
			group.Wait()
		})
	}
}
