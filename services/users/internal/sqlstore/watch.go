package sqlstore

import (
	"bytes"
	"context"
	"sync"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// historyPage is how many events of a user are in memory.
const historyPage = 100

// Watch subscribes to events; see users.Store.
func (s *Store) Watch(ctx context.Context, w users.Watch) (users.Subscription, error) {
	sub := &subscription{store: s, filter: w.Filter}
	inner, err := s.log.Subscribe(ctx, eventlog.Watch{Scope: w.Scope, Token: w.Token, Match: sub.match()})
	if err != nil {
		return nil, err
	}
	sub.Subscription = inner
	return sub, nil
}

// subscription gives the events of a log as those of users.
type subscription struct {
	*eventlog.Subscription
	store  *Store
	filter users.Filter
}

// match says which events the subscription is for.
func (s *subscription) match() func(eventlog.Event) bool {
	if s.filter == nil {
		return nil
	}
	return func(e eventlog.Event) bool {
		if e.Type == string(users.EventErased) {
			return true
		}
		d := s.store.events.decode(e)
		// What cannot be read is for everyone, so that Next reports it.
		return d.err != nil || users.Matches(s.filter, d.after) || d.hasBefore && users.Matches(s.filter, d.before)
	}
}

// Next returns the next event; see users.Subscription.
func (s *subscription) Next(ctx context.Context) (users.Event, string, error) {
	e, token, err := s.Subscription.Next(ctx)
	if err != nil {
		return users.Event{}, "", err
	}
	d := s.store.events.decode(e)
	if d.err != nil {
		return users.Event{}, "", d.err
	}
	return users.Event{
		Type: users.EventType(e.Type), At: e.At, User: d.after, Matches: users.Matches(s.filter, d.after),
	}, token, nil
}

// EventsOf yields the events of a user; see users.Store.
func (s *Store) EventsOf(ctx context.Context, id users.ID, yield func(users.Event) error) error {
	for after := int64(0); ; {
		var events []eventlog.Event
		err := s.db.ReadOne(ctx, func(q sqldb.Querier) (err error) {
			events, err = s.log.History(ctx, q, string(id), after, historyPage)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range events {
			p, err := parsePayload(e)
			if err != nil {
				return err
			}
			if err := yield(p.told(e)); err != nil {
				return err
			}
			after = e.Seq
		}
		if len(events) < historyPage {
			return nil
		}
	}
}

// decoded is what an event says.
type decoded struct {
	payload       []byte
	after, before users.User
	hasBefore     bool
	err           error
}

// decoder keeps the events that were decoded last, because each goes to many subscribers.
type decoder struct {
	mu   sync.Mutex
	last [256]struct {
		seq int64
		decoded
	}
}

// decode returns what an event says. The users in it are shared.
func (d *decoder) decode(e eventlog.Event) decoded {
	slot := &d.last[e.Seq&int64(len(d.last)-1)]
	d.mu.Lock()
	defer d.mu.Unlock()
	// A redacted event has the number of what it was.
	if slot.seq == e.Seq && slot.payload != nil && bytes.Equal(slot.payload, e.Payload) {
		return slot.decoded
	}
	slot.seq, slot.decoded = e.Seq, decodeEvent(e)
	return slot.decoded
}

func decodeEvent(e eventlog.Event) decoded {
	p, err := parsePayload(e)
	if err != nil {
		return decoded{payload: e.Payload, err: err}
	}
	out := decoded{payload: e.Payload, after: p.User.user()}
	if p.Before != nil {
		out.before, out.hasBefore = p.Before.user(), true
	}
	return out
}
