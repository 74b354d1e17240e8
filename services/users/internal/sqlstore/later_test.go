package sqlstore

import (
	"bytes"
	"context"
	"testing"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// What a later program adds to an event is nothing to this one, which reads the rest and leaves the event as it is: the
// later one has it again after a downgrade and an upgrade.
func TestAnEventOfALaterProgramIsReadAndKept(t *testing.T) {
	onEach(t, func(t *testing.T, opts Options) {
		s, _ := running(t, opts)
		ctx := t.Context()
		const user = "0199a3c0-0000-7000-8000-00000000000a"
		later := []byte(`{"user":{"user_id":"` + user + `","display_name":"Ada","state":"ACTIVE","later":{"a":[1]}},"also_later":"b"}`)
		sub, err := s.Watch(ctx, users.Watch{Scope: "test"})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
			return s.log.Append(ctx, tx, eventlog.Event{At: clock.System().Now(), Subject: user, Type: string(users.EventUpdated), Payload: later})
		})
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := sub.Next(ctx)
		if err != nil || e.User.ID != user || e.User.DisplayName != "Ada" || e.Type != users.EventUpdated {
			t.Errorf("it is read as %+v: %v", e, err)
		}
		if got := stored(ctx, t, s, user); !bytes.Equal(got, later) {
			t.Errorf("it is kept as %s", got)
		}
	})
}

// stored returns what the newest event of a user says, as it lies in the log.
func stored(ctx context.Context, t *testing.T, s *Store, user string) (payload []byte) {
	t.Helper()
	err := s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		events, err := s.log.History(ctx, q, user, 0, historyPage)
		if len(events) > 0 {
			payload = events[len(events)-1].Payload
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}
