package sqldb

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"
)

// retryFor is how long a call without a deadline is retried, counted in pauses.
const retryFor = 10 * time.Second

// The pauses between attempts: the first, doubled with each attempt up to the last.
const (
	firstConflictPause, lastConflictPause = 2 * time.Millisecond, 100 * time.Millisecond
	firstLostPause, lastLostPause         = 20 * time.Millisecond, 500 * time.Millisecond
)

// retry calls attempt until its outcome stands. The attempt returns the error of the call, and the reason for another
// attempt, or nil.
func (s *server) retry(ctx context.Context, attempt func() (err, again error)) error {
	var before error // why there is more than one attempt
	paused := time.Duration(0)
	for n := 0; ; n++ {
		began := s.clock.Now()
		err, again := attempt()
		if again == nil || ctx.Err() != nil {
			err = classify(ctx, err)
			if err != nil && ctx.Err() != nil && before != nil {
				err = fmt.Errorf("%w; before that: %v", err, before)
			}
			return err
		}
		first, last := firstConflictPause, lastConflictPause
		if !isConflict(again) {
			first, last = firstLostPause, lastLostPause
		}
		pause := s.jitter.of(min(first<<min(n, 10), last))
		if paused += pause; !s.pause(ctx, pause, s.clock.Now().Sub(began), paused) {
			return classify(ctx, err)
		}
		before = err
	}
}

// pause waits, unless the call would be over then, or before an attempt that takes twice as long as the last one took.
func (s *server) pause(ctx context.Context, d, took, all time.Duration) bool {
	deadline, ok := ctx.Deadline()
	if ok && time.Until(deadline) <= d+2*took || !ok && all > retryFor {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.clock.After(d):
		return true
	}
}

// jitter spreads what would happen at the same time.
type jitter struct {
	mu     sync.Mutex
	random io.Reader
}

// of returns a time between the half of d and d.
func (j *jitter) of(d time.Duration) time.Duration {
	var b [8]byte
	j.mu.Lock()
	_, err := io.ReadFull(j.random, b[:])
	j.mu.Unlock()
	if err != nil || d < 2 {
		return d
	}
	return d - time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(d/2))
}
