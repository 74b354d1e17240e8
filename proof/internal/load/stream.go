package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// prefix is the length of what stands before each message: a flag and the message's length.
const prefix = 5

// messages finds the ends of messages in the data of one stream.
type messages struct {
	head   [prefix]byte
	have   int // of head
	remain int // of the message
}

// count returns how many messages end in data.
func (m *messages) count(data []byte) (ended int) {
	for len(data) > 0 {
		if m.have < prefix {
			n := copy(m.head[m.have:], data)
			m.have += n
			data = data[n:]
			if m.have < prefix {
				return ended
			}
			m.remain = int(binary.BigEndian.Uint32(m.head[1:]))
		}
		n := min(m.remain, len(data))
		m.remain -= n
		data = data[n:]
		if m.remain == 0 {
			ended++
			m.have = 0
		}
	}
	return ended
}

// Messages opens one stream of the server's, lets it run for the time of warm, and returns how many messages a second came
// in the time of during. It cancels the stream then, and closes the connection.
func Messages(c *Conn, r *Request, warm, during time.Duration) (float64, error) {
	defer c.Close()
	stream, err := c.Send(r)
	if err != nil {
		return 0, err
	}
	var m messages
	var n int
	var from time.Time
	begun := time.Now()
	for {
		e, err := c.Read()
		if err != nil {
			return 0, err
		}
		if e.Ended {
			return 0, fmt.Errorf("the stream ended with code %d: %s", e.Status.Code, e.Status.Message)
		}
		now := time.Now()
		if from.IsZero() {
			m.count(e.Data)
			if now.Sub(begun) >= warm {
				from = now
			}
			continue
		}
		n += m.count(e.Data)
		if took := now.Sub(from); took >= during {
			c.Cancel(stream)
			return float64(n) / took.Seconds(), c.Flush()
		}
	}
}

// Whole opens one stream of the server's, reads it to its end, and returns how many messages it had.
func Whole(c *Conn, r *Request) (count int, err error) {
	stream, err := c.Send(r)
	if err != nil {
		return 0, err
	}
	var m messages
	for {
		e, err := c.Read()
		switch {
		case err != nil:
			return 0, err
		case e.Stream != stream:
		case !e.Ended:
			count += m.count(e.Data)
		case e.Status.Code != 0:
			return 0, fmt.Errorf("the stream ended after %d messages with code %d: %s", count, e.Status.Code, e.Status.Message)
		default:
			return count, nil
		}
	}
}

// Subscribers are many open streams of one method, of which the server sends each the same number of messages.
type Subscribers struct {
	// Arrived holds for each message, first to last, when each subscriber had it. It is to be read once Await has
	// returned nil for that message.
	Arrived [][]time.Time

	left []atomic.Int64 // subscribers that still wait, by message
	all  []chan struct{}
	stop context.CancelCauseFunc
	ctx  context.Context
}

// Subscribe opens count streams, spread over the connections, each of which receives so many messages in all. They last
// until the connections are closed.
func Subscribe(ctx context.Context, conns []*Conn, r *Request, count, messages int) *Subscribers {
	s := &Subscribers{
		Arrived: make([][]time.Time, messages), left: make([]atomic.Int64, messages), all: make([]chan struct{}, messages),
	}
	for i := range messages {
		s.Arrived[i] = make([]time.Time, count)
		s.left[i].Store(int64(count))
		s.all[i] = make(chan struct{})
	}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	first := 0
	for i, c := range conns {
		own := count / len(conns)
		if i < count%len(conns) {
			own++
		}
		from := first
		first += own
		go func() { s.stop(s.follow(c, r, from, own)) }()
	}
	return s
}

// Await returns once every subscriber has message n, counted from 0. It fails when one of the streams ends.
func (s *Subscribers) Await(n int) error {
	select {
	case <-s.all[n]:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// follow opens the subscribers from..from+count on one connection and reads it until it ends, which its error tells of.
func (s *Subscribers) follow(c *Conn, r *Request, from, count int) error {
	type subscriber struct {
		index, seen int
		messages    messages
	}
	open := make(map[uint32]*subscriber, count)
	for opened := 0; ; {
		// A few at a time: the server opens its window as it reads.
		for ; opened < count; opened++ {
			stream, err := c.Send(r)
			if errors.Is(err, errWindow) {
				break
			}
			if err != nil {
				return err
			}
			open[stream] = &subscriber{index: from + opened}
		}
		e, err := c.Read()
		if err != nil {
			return err
		}
		sub := open[e.Stream]
		if e.Ended || sub == nil {
			return fmt.Errorf("a subscription ended with code %d: %s", e.Status.Code, e.Status.Message)
		}
		now := time.Now()
		for range sub.messages.count(e.Data) {
			if sub.seen >= len(s.Arrived) {
				return fmt.Errorf("a subscriber has more than %d messages", len(s.Arrived))
			}
			s.Arrived[sub.seen][sub.index] = now
			if s.left[sub.seen].Add(-1) == 0 {
				close(s.all[sub.seen])
			}
			sub.seen++
		}
	}
}
