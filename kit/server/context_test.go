package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/identity"
)

type testKey struct{}

func bounded(parent context.Context, after time.Duration) *call {
	c := &call{Call: identity.Call{Context: parent, RequestID: "r1"}}
	c.until(time.Now().Add(after), errTimeout)
	return c
}

func TestACallEndsAtItsDeadlineWhetherSomebodyWaitsOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unwatched, watched := bounded(t.Context(), time.Second), bounded(t.Context(), time.Second)
		done := watched.Done()
		if unwatched.Err() != nil || watched.Err() != nil {
			t.Fatal("over before its time")
		}
		time.Sleep(time.Second)
		<-done
		for name, c := range map[string]*call{"unwatched": unwatched, "watched": watched} {
			if !errors.Is(c.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(c), errTimeout) {
				t.Errorf("%s: err %v, cause %v", name, c.Err(), context.Cause(c))
			}
			c.end()
		}
	})
}

func TestAContextBelowACallEndsWithItAndKnowsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bounded(t.Context(), time.Second)
		below, cancel := context.WithCancel(context.WithValue(c, testKey{}, 1))
		defer cancel()
		if identity.RequestID(below) != "r1" || callFrom(below) != c {
			t.Error("what stands in the call is not found from below")
		}
		<-below.Done()
		if !errors.Is(context.Cause(below), errTimeout) {
			t.Errorf("cause %v", context.Cause(below))
		}
		c.end()
	})
}

func TestTheEarliestDeadlineCounts(t *testing.T) {
	parent, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	c := bounded(parent, time.Minute)
	sooner := time.Now().Add(time.Second)
	c.until(sooner, errHopeless)
	c.until(time.Now().Add(time.Hour), errTimeout)
	if d, ok := c.Deadline(); !ok || !d.Equal(sooner) {
		t.Errorf("deadline %v, want %v", d, sooner)
	}
}

func TestAnEndedCallEndsWhoeverWaitsOrComesLate(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := bounded(parent, time.Hour)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { <-c.Done() })
	}
	c.end()
	all.Wait()
	late := bounded(parent, time.Hour)
	late.end()
	select {
	case <-late.Done():
	case <-time.After(time.Minute):
		t.Error("a wait that began after the end goes on")
	}
}
