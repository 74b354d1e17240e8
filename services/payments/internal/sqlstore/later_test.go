package sqlstore

import (
	"context"
	"testing"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// What a later program adds to an event is nothing to this one, which reads the rest and leaves the event as it is: the
// later one has it again after a downgrade and an upgrade.
func TestAnEventOfALaterProgramIsReadAndKept(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	const customer = "0199a3c0-0000-7000-8000-00000000000a"
	later := `{"number":7,"id":"0199a3c0-0000-7000-8000-00000000000b","order":"o","customer":"` + customer +
		`","amount":150,"currency":"EUR","state":"CAPTURED","created_at":1,"of":150,"later":{"a":[1]}}`
	feed, err := s.Watch(ctx, customer, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		return s.log.Append(ctx, tx, eventlog.Event{At: s.clock.Now(), Subject: customer, Type: "CHARGED", Payload: []byte(later)})
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := feed.Next(ctx)
	if err != nil || got.Payment.Order != "o" || got.Amount != 150 || got.Type != "CHARGED" {
		t.Errorf("it is read as %+v: %v", got, err)
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		events, err := s.log.History(ctx, q, customer, 0, 1)
		if err == nil && (len(events) != 1 || string(events[0].Payload) != later) {
			t.Errorf("it is kept as %v", events)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
