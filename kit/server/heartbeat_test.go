package server_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/server"
)

// seldom is a subscription whose events come when a test tells them, and whose place moves on in between, past events that
// nobody asked for.
type seldom struct {
	events chan string // each is also the token of the point after it

	mu    sync.Mutex
	place string
}

func (s *seldom) Next(ctx context.Context) (string, string, error) {
	select {
	case e := <-s.events:
		s.move(e)
		return e, e, nil
	case <-ctx.Done():
		return "", "", ctx.Err()
	}
}

func (s *seldom) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.place
}

func (s *seldom) move(place string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place = place
}

func (*seldom) OnCut(func(error)) {}

// A client that was told nothing for an hour must not have to resume from an hour ago: that point may be trimmed by then.
func TestAQuietStreamTellsWhereItStandsEveryFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type sent struct {
			at           time.Duration
			event, token string
		}
		var got []sent
		events, began := &seldom{events: make(chan string), place: "begin"}, time.Now()
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- server.Follow(ctx, events, func(e *string, token string) error {
				s := sent{at: time.Since(began), token: token}
				if e != nil {
					s.event = *e
				}
				got = append(got, s)
				return nil
			})
		}()
		time.Sleep(10 * time.Second)
		events.move("past what does not match")
		time.Sleep(15 * time.Second)
		events.events <- "event" // after which the stream is quiet from anew
		time.Sleep(31 * time.Second)
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if want := []sent{
			{0, "", "begin"}, {15 * time.Second, "", "past what does not match"}, {25 * time.Second, "event", "event"},
			{40 * time.Second, "", "event"}, {55 * time.Second, "", "event"},
		}; !slices.Equal(got, want) {
			t.Errorf("sent %v, want %v", got, want)
		}
	})
}
