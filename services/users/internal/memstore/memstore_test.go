package memstore

import (
	"context"
	"fmt"
	"testing"

	"github.com/concordat-dev/concordat/services/users/internal/storetest"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Backend {
		s := New()
		return storetest.Backend{
			Store:     s,
			Reopen:    func(*testing.T) users.Store { return s },
			Snapshots: MaxSnapshots,
			Dump: func(context.Context) (string, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				return fmt.Sprintf("%v %v %v %v %v", s.users, s.emails, s.created, s.changed, s.log), nil
			},
			Clear: func(context.Context) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				clear(s.users)
				clear(s.emails)
				clear(s.created)
				clear(s.changed)
				return nil
			},
		}
	})
}
