package load

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/histogram"
)

// Result is what came of a load.
type Result struct {
	// OK is how many calls ended well in the measured time, and Took is how long that was.
	OK   uint64
	Took time.Duration
	// Latency is how long those took.
	Latency histogram.Histogram
	// Refused is how long the others took.
	Refused histogram.Histogram
	// Failed counts the others by what they ended with.
	Failed map[Status]uint64
}

// Rate returns the calls that ended well in a second.
func (r *Result) Rate() float64 { return float64(r.OK) / r.Took.Seconds() }

// Err returns an error that names a failure, if there was one: for loads of which every call must end well.
func (r *Result) Err() error {
	for s, n := range r.Failed {
		return fmt.Errorf("%d calls failed, among them with code %d: %s", n, s.Code, s.Message)
	}
	return nil
}

func (r *Result) fail(s Status, took time.Duration) {
	if r.Failed == nil {
		r.Failed = make(map[Status]uint64)
	}
	r.Failed[s]++
	r.Refused.Record(took)
}

func (r *Result) add(o *Result) {
	r.OK += o.OK
	r.Latency.Add(&o.Latency)
	r.Refused.Add(&o.Refused)
	for s, n := range o.Failed {
		if r.Failed == nil {
			r.Failed = make(map[Status]uint64)
		}
		r.Failed[s] += n
	}
}

// Closed has so many callers call as often as they are answered, spread over the connections, for a while. It returns
// once the last answer is there. A call that was answered after the time counts if it failed.
func Closed(conns []*Conn, r *Request, callers int, during time.Duration) (*Result, error) {
	begun := time.Now()
	return spread(conns, during, func(i int, c *Conn) (*Result, error) {
		own := callers / len(conns)
		if i < callers%len(conns) {
			own++
		}
		return closed(c, r, own, begun.Add(during))
	})
}

// spread runs one goroutine for each connection and adds up what they say.
func spread(conns []*Conn, during time.Duration, run func(int, *Conn) (*Result, error)) (*Result, error) {
	type outcome struct {
		result *Result
		err    error
	}
	outcomes := make(chan outcome, len(conns))
	for i, c := range conns {
		go func() {
			res, err := run(i, c)
			outcomes <- outcome{res, err}
		}()
	}
	sum := &Result{Took: during}
	var errs []error
	for range conns {
		o := <-outcomes
		if o.err != nil {
			errs = append(errs, o.err)
			continue
		}
		sum.add(o.result)
	}
	return sum, errors.Join(errs...)
}

func closed(c *Conn, r *Request, callers int, end time.Time) (*Result, error) {
	res := &Result{}
	type call struct {
		begun  time.Time
		answer []byte // of which somebody wants to know what it is
	}
	calls := make(map[uint32]call, callers)
	send := func(now time.Time) error {
		stream, err := c.Send(r)
		if err == nil {
			calls[stream] = call{begun: now}
		}
		return err
	}
	for range callers {
		if err := send(time.Now()); err != nil {
			return nil, err
		}
	}
	for len(calls) > 0 {
		e, err := c.Read()
		if err != nil {
			return nil, err
		}
		if !e.Ended {
			if own, ours := calls[e.Stream]; ours && r.Check != nil {
				own.answer = append(own.answer, e.Data...)
				calls[e.Stream] = own
			}
			continue
		}
		now := time.Now()
		own, ours := calls[e.Stream]
		if !ours {
			continue // of a load before
		}
		delete(calls, e.Stream)
		over := now.After(end)
		switch status := r.checked(e.Status, own.answer); {
		case status.Code != 0:
			res.fail(status, now.Sub(own.begun))
		case !over:
			res.OK++
			res.Latency.Record(now.Sub(own.begun))
		}
		if over {
			continue
		}
		if err := send(now); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Wrong is the code of a call that ended well with an answer that is not what it must be.
const Wrong = -2

// checked returns how a call ended, by its status and by its answer, a message with what stands before it.
func (r *Request) checked(s Status, answer []byte) Status {
	if s.Code != 0 || r.Check == nil {
		return s
	}
	if len(answer) < prefix {
		return Status{Wrong, fmt.Sprintf("%s answered %d bytes", r.Method, len(answer))}
	}
	if err := r.Check(answer[prefix:]); err != nil {
		return Status{Wrong, err.Error()}
	}
	return s
}

// Once makes one call and returns the encoded answer.
func Once(c *Conn, r *Request) ([]byte, error) {
	stream, err := c.Send(r)
	if err != nil {
		return nil, err
	}
	var answer []byte
	for {
		e, err := c.Read()
		switch {
		case err != nil:
			return nil, err
		case e.Stream != stream:
		case !e.Ended:
			answer = slices.Concat(answer, e.Data)
		case e.Status.Code != 0:
			return nil, fmt.Errorf("%s ended with code %d: %s", r.Method, e.Status.Code, e.Status.Message)
		case len(answer) < prefix:
			return nil, fmt.Errorf("%s answered %d bytes", r.Method, len(answer))
		default:
			return answer[prefix:], nil
		}
	}
}
