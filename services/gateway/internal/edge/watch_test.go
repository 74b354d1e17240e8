package edge

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

func TestTheLogTellsOfWhatIsRefusedEveryTenSeconds(t *testing.T) {
	var log bytes.Buffer
	clk := clocktest.New(time.Unix(1_000_000, 0))
	r := &refused{log: slog.New(slog.NewTextHandler(&log, nil)), clock: clk}
	lines := func() int { return strings.Count(log.String(), "requests refused") }
	for range 500 {
		r.tell(t.Context(), slog.Int("status", http.StatusNotFound))
	}
	clk.Advance(tellEvery - time.Nanosecond)
	r.tell(t.Context())
	if n := lines(); n != 1 || !strings.Contains(log.String(), "refused=1") {
		t.Errorf("%d lines: %s", n, &log)
	}
	clk.Advance(time.Nanosecond)
	r.tell(t.Context())
	if n := lines(); n != 2 || !strings.Contains(log.String(), "refused=501") {
		t.Errorf("%d lines: %s", n, &log)
	}
}

func TestAConnectionTellsWhatBecameNoRequest(t *testing.T) {
	const active, idle, closed = http.StateActive, http.StateIdle, http.StateClosed
	for name, tc := range map[string]struct {
		read   int
		states []any // a state, or true for a handler that is called
		want   int
	}{
		"a request, then another":          {100, []any{active, true, idle, active, true, closed}, 0},
		"a connection that is only opened": {0, []any{closed}, 0},
		"no HTTP":                          {100, []any{active, closed}, 400},
		"no HTTP behind a request":         {100, []any{active, true, idle, active, closed}, 400},
		"headers without end":              {maxHeaderBytes + 1, []any{active, closed}, 431},
		"HTTP/2 begins":                    {100, []any{active, idle, closed}, 0},
		"HTTP/2, refused at once":          {100, []any{active, idle, active, idle}, 400},
		"HTTP/2, refused behind a request": {100, []any{active, idle, active, true, idle, active, idle, closed}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			c, got := &watchedConn{}, 0
			for _, s := range tc.states {
				state, ok := s.(http.ConnState)
				if !ok {
					c.handled()
					continue
				}
				if state == active {
					c.read = tc.read
				}
				got += c.became(state)
			}
			if got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}
