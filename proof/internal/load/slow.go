package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

const (
	// slowLength is how much a slow client owes, in bytes: more than it comes to say, and less than a server refuses at once.
	slowLength = 8000
	// slowCall is after how many bytes a slow client begins another call: the server may have ended the one before.
	slowCall = 20
)

// Slow are clients that keep a server waiting for as long as it lets them, in the manner of Slowloris: each holds a connection, says
// a byte at a time of what it owes, in a frame of its own where there are frames, and connects anew when it is cut. Of five, one owes
// the rest of its ClientHello, one that of HTTP/2's greeting, one that of a call's headers, one that of a call's message, and one takes
// its answers byte by byte; the last two begin another call after slowCall bytes.
type Slow struct {
	// Held is how many connections are open, Opened how many ever were, and Said how many times one of them said something.
	Held, Opened, Said atomic.Int64
	// Again is closed when the first of them has connected anew.
	Again <-chan struct{}

	stop  context.CancelFunc
	ended sync.WaitGroup
}

// Dribble connects so many slow clients to the server at address, and returns once it has. From then until Close, or the end of ctx,
// each says one byte in every interval. Their calls are r. Without config they speak no TLS.
func Dribble(ctx context.Context, address string, config *tls.Config, r *Request, count int, interval time.Duration) (*Slow, error) {
	ctx, stop := context.WithCancel(ctx)
	again := make(chan struct{})
	s := &Slow{stop: stop, Again: again}
	told := sync.OnceFunc(func() { close(again) })
	manners := slowManners(r)
	for i := range count {
		m := manners[i%len(manners)]
		conn, err := m.connect(ctx, address, config)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("connect the slow client %d: %w", i, err)
		}
		s.ended.Go(func() {
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for ctx.Err() == nil {
				if err == nil {
					s.hold(ctx, conn, m, tick.C)
				} else {
					<-tick.C // it has too many connections, or the server went away: it tries again
				}
				if conn, err = m.connect(ctx, address, config); err == nil {
					told()
				}
			}
			if err == nil {
				_ = conn.Close()
			}
		})
	}
	return s, nil
}

// Close ends their connections, and returns once they are closed.
func (s *Slow) Close() {
	s.stop()
	s.ended.Wait()
}

// hold says byte by byte what m has to say, until the server closes the connection or ctx ends. It closes the connection.
func (s *Slow) hold(ctx context.Context, conn net.Conn, m manner, tick <-chan time.Time) {
	s.Opened.Add(1)
	s.Held.Add(1)
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		_, _ = io.Copy(io.Discard, conn) // what it says of the cut does not matter
		s.Held.Add(-1)
	}()
	defer func() { _ = conn.Close(); <-cut }()
	for n := 0; ; n++ {
		select {
		case <-tick:
		case <-cut:
			return
		case <-ctx.Done():
			return
		}
		if _, err := conn.Write(m.next(n)); err != nil {
			return
		}
		s.Said.Add(1)
	}
}

// manner is one way to be slow.
type manner struct {
	plain bool             // it has no handshake
	begin []byte           // what it says at once
	next  func(int) []byte // what it says in each interval, counted from 0
}

// connect opens a connection that has said what is said at once.
func (m manner) connect(ctx context.Context, address string, config *tls.Config) (conn net.Conn, err error) {
	if m.plain || config == nil {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
	} else {
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(m.begin); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// slowManners returns the five that Slow speaks of.
func slowManners(r *Request) []manner {
	hello := slices.Concat([]byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc, 3, 3}, make([]byte, slowLength)) // a record, and a message in it
	greeting := slices.Concat([]byte(preface), wireFrame(frameSettings, 0, 0, make([]byte, slowLength)))
	greeted := slices.Concat([]byte(preface), wireFrame(frameSettings, 0, 0, nil))
	noWindow := slices.Concat([]byte(preface), wireFrame(frameSettings, 0, 0, []byte{0, settingInitialWindow, 0, 0, 0, 0}))
	headers := block(fields(r))
	rest := block([]hpack.HeaderField{{Name: "x-rest", Value: strings.Repeat("x", slowLength)}})
	length := binary.BigEndian.AppendUint32([]byte{0}, slowLength)
	message := slices.Concat(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(r.Message))), r.Message)
	at := func(text []byte, n int) []byte { return text[n%len(text):][:1] }
	// calls has a call after the other, each begun with its headers and a frame of data.
	calls := func(flags byte, data []byte, next func(stream uint32) []byte) func(int) []byte {
		return func(n int) []byte {
			stream := uint32(n/slowCall*2 + 1)
			if n%slowCall > 0 {
				return next(stream)
			}
			return slices.Concat(wireFrame(frameHeaders, flagEndHeaders, stream, headers), wireFrame(frameData, flags, stream, data))
		}
	}
	return []manner{
		{plain: true, next: func(n int) []byte { return at(hello, n) }},
		{next: func(n int) []byte { return at(greeting, n) }},
		{
			begin: slices.Concat(greeted, wireFrame(frameHeaders, 0, 1, headers)),
			next:  func(n int) []byte { return wireFrame(frameContinuation, 0, 1, at(rest, n)) },
		},
		{
			begin: greeted,
			next:  calls(0, length, func(stream uint32) []byte { return wireFrame(frameData, 0, stream, []byte{0}) }),
		},
		{
			begin: noWindow,
			next: calls(flagEndStream, message, func(stream uint32) []byte {
				return wireFrame(frameWindowUpdate, 0, stream, []byte{0, 0, 0, 1})
			}),
		},
	}
}

// wireFrame returns a frame.
func wireFrame(kind, flags byte, stream uint32, payload []byte) []byte {
	return append(appendHead(nil, len(payload), kind, flags, stream), payload...)
}

// block returns an encoded header block that may come more than once, and anywhere.
func block(fields []hpack.HeaderField) []byte {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	for _, f := range fields {
		_ = enc.WriteField(f) // into memory
	}
	return out.Bytes()
}
