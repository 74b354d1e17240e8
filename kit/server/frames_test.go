package server

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
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
		h := newHeard(nil, &connection{}, nil)
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
