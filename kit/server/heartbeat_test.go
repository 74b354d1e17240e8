package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/server"
)

// sparse is a log in which events come now and then, and in which some pass that nobody here wants.
type sparse struct {
	events   chan string // their tokens
	position atomic.Value
}

func (s *sparse) Next(ctx context.Context) (struct{}, string, error) {
	select {
	case token := <-s.events:
		s.position.Store(token)
		return struct{}{}, token, nil
	case <-ctx.Done():
		return struct{}{}, "", ctx.Err()
	}
}

func (s *sparse) Position() string  { return s.position.Load().(string) }
func (s *sparse) OnCut(func(error)) {}

// TestAQuietStreamSendsItsResumePoint has a stream say where it stands at once, and then each time that nothing was sent for a
// Heartbeat, with a point that moves on past what does not match.
func TestAQuietStreamSendsItsResumePoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sub := &sparse{events: make(chan string, 1)}
		sub.position.Store("start")
		var told []string
		began, ended := time.Now(), make(chan error, 1)
		go func() {
			ended <- server.Follow(ctx, sub, func(event *struct{}, token string) error {
				told = append(told, fmt.Sprintf("%s %s, an event: %t", time.Since(began), token, event != nil))
				return nil
			})
		}()
		at := func(second int) {
			time.Sleep(time.Until(began.Add(time.Duration(second) * time.Second)))
			synctest.Wait()
		}
		at(10)
		sub.events <- "first"
		at(30)
		sub.position.Store("past others")
		at(41)
		sub.events <- "second"
		at(50)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		want := []string{
			"0s start, an event: false", "10s first, an event: true", "25s first, an event: false",
			"40s past others, an event: false", "41s second, an event: true",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told\n%q, want\n%q", told, want)
		}
	})
}
