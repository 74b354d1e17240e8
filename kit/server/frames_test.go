package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/concordat-dev/concordat/kit/clock"
)

func TestFramesAreUnderstoodInPiecesOfAnySize(t *testing.T) {
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&wire, nil)
	block := bytes.Repeat([]byte{0, 0, 8, 1}, 30) // looks like the beginning of a frame
	write := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write(framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14}))
	write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}))
	write(framer.WriteData(1, false, block))
	write(framer.WriteData(1, true, nil))
	write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})) // trailers
	write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block}))
	write(framer.WriteContinuation(3, false, block))
	open := wire.Len() // the headers of the second call are under way
	write(framer.WriteContinuation(3, true, nil))
	write(framer.WritePing(false, [8]byte{}))
	write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: block, EndHeaders: true}))
	for size := 1; size <= wire.Len(); size++ {
		h := newHeard(nil, new(openCalls), nil, nil)
		feed := func(p []byte) {
			for len(p) > 0 {
				n := min(size, len(p))
				h.scan(p[:n])
				p = p[n:]
			}
		}
		feed(wire.Bytes()[:open])
		if n := h.calls.opened.Load(); n != 2 || !h.inside {
			t.Fatalf("in pieces of %d: %d calls are open, the headers of one under way: %v; want 2, true", size, n, h.inside)
		}
		feed(wire.Bytes()[open : wire.Len()-1])
		if n := h.calls.opened.Load(); n != 3 || !h.inside {
			t.Fatalf("in pieces of %d, but for the last byte: %d calls are open, headers under way: %v; want 3, true", size, n, h.inside)
		}
		feed(wire.Bytes()[wire.Len()-1:])
		if h.inside {
			t.Fatalf("in pieces of %d: headers are still under way", size)
		}
	}
}

// aFrameAtATime is a connection from which each Read gets one piece.
type aFrameAtATime struct {
	net.Conn
	pieces [][]byte
}

func (c *aFrameAtATime) Read(p []byte) (int, error) {
	n := copy(p, c.pieces[0])
	c.pieces = c.pieces[1:]
	return n, nil
}

func (c *aFrameAtATime) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// TestACallIsMissedOnceItsHeadersHaveComeAndNotBefore has headers come in several frames: grpc-go announces a call, or refuses it, when
// it has seen the last of them, and is done with what it has read when it reads again.
func TestACallIsMissedOnceItsHeadersHaveComeAndNotBefore(t *testing.T) {
	var from aFrameAtATime
	var wire bytes.Buffer
	framer := http2.NewFramer(&wire, nil)
	piece := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		from.pieces = append(from.pieces, bytes.Clone(wire.Bytes()))
		wire.Reset()
	}
	wire.WriteString(http2.ClientPreface)
	piece(framer.WriteSettings())
	for _, stream := range []uint32{1, 3} {
		piece(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte("a")}))
		piece(framer.WriteContinuation(stream, false, []byte("b")))
		piece(framer.WriteContinuation(stream, true, []byte("c")))
		piece(framer.WritePing(false, [8]byte{}))
	}
	var calls openCalls
	h := newHeard(&from, &calls, nil, &refusals{log: slog.New(slog.DiscardHandler), clock: clock.System()})
	for i, step := range []struct {
		what      string
		announced bool // after it
		missed    int64
	}{
		{"the preface", false, 0},
		{"the beginning of the headers of a call", false, 0},
		{"more of them", false, 0},
		{"the last of them", true, 0},
		{"a ping", false, 0},
		{"the beginning of the headers of another call", false, 0},
		{"more of them", false, 0},
		{"the last of them, which are refused", false, 0},
		{"another ping", false, 1},
	} {
		if _, err := h.Read(make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
		if step.announced {
			calls.announced.Add(1)
		}
		if got := calls.told.Load(); got != step.missed {
			t.Errorf("%d, with %s: %d calls are missed, want %d", i, step.what, got, step.missed)
		}
	}
}

// broken is a connection to which nothing can be written.
type broken struct{ net.Conn }

func (broken) Write(p []byte) (int, error) { return len(p) / 2, net.ErrClosed }

func TestAWriteThatFailsIsNotSaidToHaveGoneThrough(t *testing.T) {
	h := newHeard(broken{}, new(openCalls), nil, nil)
	var wire bytes.Buffer
	if err := http2.NewFramer(&wire, nil).WritePing(false, [8]byte{}); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Write(wire.Bytes()); n != wire.Len()/2 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
