package sqlstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/sqlstore"
	"github.com/concordat-dev/concordat/services/auth/internal/storetest"
)

func open(t *testing.T, dir string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: dir, Clock: clock.System(), Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// events reads what a log has behind a token.
func events(ctx context.Context, log *eventlog.Log, from string) ([]auth.Event, error) {
	sub, err := log.Subscribe(ctx, eventlog.Watch{Scope: scope, Token: from})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	head, err := log.Subscribe(ctx, eventlog.Watch{Scope: scope})
	if err != nil {
		return nil, err
	}
	defer head.Close()
	var all []auth.Event
	for sub.Position() != head.Position() {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, auth.Event{
			UserID: auth.UserID(e.Subject), Type: auth.EventType(e.Type), At: e.At, SessionID: auth.SessionID(e.Payload),
		})
	}
	return all, nil
}

const scope = "test"

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		dir := t.TempDir()
		s := open(t, dir)
		sub, err := s.Log().Subscribe(t.Context(), eventlog.Watch{Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		begin := sub.Position()
		sub.Close()
		return storetest.Backend{
			Store:  s,
			Events: func(ctx context.Context) ([]auth.Event, error) { return events(ctx, s.Log(), begin) },
			Reopen: func(t *testing.T) auth.Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir)
				return s
			},
		}
	})
}

func TestADataDirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: dir, Clock: clock.System(), Random: rand.Reader})
	if !errors.Is(err, sqldb.ErrLocked) {
		t.Errorf("got %v", err)
	}
}

func TestAnEventKeepsItsTimeToTheMicrosecond(t *testing.T) {
	s := open(t, t.TempDir())
	sub, err := s.Log().Subscribe(t.Context(), eventlog.Watch{Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	err = s.Write(t.Context(), func(tx auth.Tx) error {
		return tx.Append(t.Context(), auth.Event{UserID: "u", Type: auth.EventLogin, At: at})
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := events(t.Context(), s.Log(), sub.Position())
	if err != nil || len(got) != 1 || !got[0].At.Equal(at) {
		t.Errorf("got %v, %v", got, err)
	}
}
