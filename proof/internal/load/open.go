package load

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// tick is how often an open loop looks at what is due.
const tick = time.Millisecond

// grace is how long an open loop waits for answers after the timeout of its last call.
const grace = time.Second

// Open begins calls at a fixed rate (per second, over all connections) for a while, whether or not earlier ones were
// answered. Latencies run from the moment at which a call was due. A call that ends well after its own timeout counts as
// failed: nobody waits for it any more.
func Open(conns []*Conn, r *Request, rate float64, during time.Duration) (*Result, error) {
	begun := time.Now()
	return spread(conns, during, func(_ int, c *Conn) (*Result, error) {
		return open(c, r, rate/float64(len(conns)), begun, during)
	})
}

// How calls of an open loop end that no answer of the server ends. They count as refused after their timeout.
var (
	// Late: the answer was good, but came after the timeout of the call.
	Late = Status{Code: -1, Message: "the answer came after the timeout of the call"}
	// Unsent: the server had as many calls on the connection as it takes.
	Unsent = Status{Code: -1, Message: "the server took no more calls on the connection"}
	// Unanswered: there was no answer at all.
	Unanswered = Status{Code: -1, Message: "the call was not answered"}
)

func open(c *Conn, r *Request, rate float64, begun time.Time, during time.Duration) (*Result, error) {
	var (
		mu   sync.Mutex
		due  = make(map[uint32]time.Time)
		res  = &Result{}
		over bool // nothing more is sent
		sent = make(chan error, 1)
	)
	if err := c.raw.SetReadDeadline(begun.Add(during + r.Timeout + grace)); err != nil {
		return nil, err
	}
	go func() {
		// The lock is held over a send, so that no answer comes before its call is known.
		err := c.pace(rate, begun, during, func(at time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			if uint32(len(due)) >= c.MaxStreams() {
				res.fail(Unsent, r.Timeout)
				return nil
			}
			stream, err := c.Send(r)
			if errors.Is(err, errWindow) {
				res.fail(Unsent, r.Timeout)
				return nil
			}
			if err == nil {
				due[stream] = at
			}
			return err
		})
		mu.Lock()
		defer mu.Unlock()
		over = true
		if len(due) == 0 {
			err = errors.Join(err, c.raw.SetReadDeadline(time.Now())) // there is nothing left to read for
		}
		sent <- err
	}()
	for done := false; !done; {
		e, err := c.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, c.raw.Close(), <-sent)
		}
		if !e.Ended {
			continue
		}
		now := time.Now()
		mu.Lock()
		at, ours := due[e.Stream]
		delete(due, e.Stream)
		took := now.Sub(at)
		switch {
		case !ours: // of a load before
		case e.Status.Code != 0:
			res.fail(e.Status, took)
		case took > r.Timeout:
			res.fail(Late, took)
		default:
			res.OK++
			res.Latency.Record(took)
		}
		done = over && len(due) == 0
		mu.Unlock()
	}
	if err := <-sent; err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	for range due {
		res.fail(Unanswered, r.Timeout)
	}
	return res, c.raw.SetReadDeadline(time.Time{})
}

// pace calls send for each call that is due, with the moment at which it was.
func (c *Conn) pace(rate float64, begun time.Time, during time.Duration, send func(time.Time) error) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	total := int(rate * during.Seconds())
	for n := 0; n < total; {
		for want := min(int(time.Since(begun).Seconds()*rate), total); n < want; n++ {
			if err := send(begun.Add(time.Duration(float64(n) / rate * float64(time.Second)))); err != nil {
				return err
			}
		}
		if err := c.Flush(); err != nil {
			return err
		}
		if n < total {
			<-ticker.C
		}
	}
	return nil
}
