package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Dialog is a stream both ways on which each message is answered by one, in any order.
type Dialog struct {
	// Method is the full name, "/package.Service/Method".
	Method string
	// Timeout is what the streams say that they will wait, in whole milliseconds.
	Timeout time.Duration
	// Next returns the next message, encoded, and the key that its answer will have. It is called from several goroutines at once.
	// A key may come again, also before the first message with it is answered.
	Next func() (message []byte, key string)
	// Answer returns the key of an answer, or an error where it is none that is wanted. It is called as Next is.
	Answer func(message []byte) (key string, err error)
}

// Pipelined has one such stream on each connection for a while, and keeps on each so many messages that are not answered yet. It
// returns once the last answer is there and the streams have ended well. Every message must be answered by a message; OK counts
// those that were within the time.
func Pipelined(conns []*Conn, d *Dialog, window int, during time.Duration) (*Result, error) {
	begun := time.Now()
	return spread(conns, during, func(_ int, c *Conn) (*Result, error) {
		return pipelined(c, d, window, begun.Add(during))
	})
}

func pipelined(c *Conn, d *Dialog, window int, end time.Time) (*Result, error) {
	var (
		res  = &Result{}
		open int
		sent = make(map[string][]time.Time, window) // by key, when the messages that are not answered were sent
		in   splitter
		room = int64(defaultWindow) // bytes that the server takes on this stream
	)
	stream := c.begin(&Request{Method: d.Method, Timeout: d.Timeout})
	send := func(now time.Time) error {
		message, key := d.Next()
		if room -= int64(prefix + len(message)); room < 0 {
			return errWindow // the messages under way are few and small
		}
		if err := c.message(stream, message); err != nil {
			return err
		}
		sent[key] = append(sent[key], now)
		open++
		return nil
	}
	for range window {
		if err := send(time.Now()); err != nil {
			return nil, err
		}
	}
	answered := func(message []byte) error {
		key, err := d.Answer(message)
		if err != nil {
			return err
		}
		waiting := sent[key]
		if len(waiting) == 0 {
			return fmt.Errorf("%s answers for %q, which was not asked for or is answered already", d.Method, key)
		}
		now := time.Now()
		if sent[key] = waiting[1:]; len(waiting) == 1 {
			delete(sent, key)
		}
		open--
		if now.After(end) {
			return nil
		}
		res.OK++
		res.Latency.Record(now.Sub(waiting[0]))
		return send(now)
	}
	for done := false; ; {
		e, err := c.Read()
		if err != nil {
			return nil, err
		}
		if e.Stream != stream {
			continue // of a load before
		}
		if e.Ended {
			if e.Status.Code != 0 || !done {
				return nil, fmt.Errorf("%s ended with code %d before all was answered: %s", d.Method, e.Status.Code, e.Status.Message)
			}
			return res, nil
		}
		room += e.Room
		if err := in.split(e.Data, answered); err != nil {
			return nil, err
		}
		if open == 0 && !done {
			done = true
			c.finish(stream)
		}
	}
}

// splitter finds messages in the data of one stream.
type splitter struct{ rest []byte }

// split calls each with every message that ends in data. The message is valid during the call.
func (s *splitter) split(data []byte, each func([]byte) error) error {
	if len(s.rest) > 0 {
		s.rest = append(s.rest, data...)
		data = s.rest
	}
	for len(data) >= prefix {
		size := prefix + int(binary.BigEndian.Uint32(data[1:]))
		if len(data) < size {
			break
		}
		if data[0] != 0 {
			return errors.New("read: a compressed message")
		}
		if err := each(data[prefix:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	s.rest = append(s.rest[:0], data...)
	return nil
}
