package clock_test

import (
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

func TestTheSystemClockShowsTheTimeAndWakes(t *testing.T) {
	c := clock.System()
	before := time.Now()
	now := c.Now()
	if now.Before(before) || now.After(time.Now()) {
		t.Errorf("Now() = %v, want a time between two readings of the machine's clock", now)
	}
	const d = time.Millisecond
	if woke := <-c.After(d); woke.Sub(now) < d {
		t.Errorf("After(%v) woke after %v", d, woke.Sub(now))
	}
}
