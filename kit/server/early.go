package server

import (
	"encoding/binary"
	"net"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// heard is a connection whose frames are counted on their way to grpc-go, which answers by itself, and tells nobody of,
// a call whose headers it cannot take. Of each frame it looks at the nine bytes of the header alone: a stream that the
// client has opened and that no tap gets to see was such a call. What grpc-go answers passes through answers.
//
// grpc-go reads, and announces, on one goroutine, a frame at a time: when it reads again, it is done with every frame
// that has come whole.
type heard struct {
	net.Conn
	calls       *openCalls
	connections *refusals
	early       *refusals // of calls
	attrs       []any

	greeted int  // bytes of the preface that have come
	begun   bool // a frame has come
	garbage bool // it is not HTTP/2 that comes, and nobody looks at more of it

	skip   int // bytes of a payload that are still to come
	header [frameHeader]byte
	have   int    // of header
	newest uint32 // stream
	inside bool   // a block of headers has begun and not ended
	ending bool   // and the frame that is read ends it

	sent answers
}

// openCalls are the calls of a connection: those that the client has opened, and those of them that were announced.
type openCalls struct{ opened, announced, told atomic.Int64 }

const frameHeader = 9

// newHeard returns c, heard. What is said of it and of its calls has the attributes.
func newHeard(c net.Conn, calls *openCalls, connections, early *refusals, attrs ...any) *heard {
	return &heard{Conn: c, calls: calls, connections: connections, early: early, attrs: attrs}
}

// Read implements net.Conn.
func (h *heard) Read(p []byte) (int, error) {
	under := int64(0)
	if h.inside {
		under = 1
	}
	h.settle(under)
	n, err := h.Conn.Read(p)
	h.scan(p[:n])
	return n, err
}

// Write implements net.Conn.
func (h *heard) Write(p []byte) (int, error) {
	out := h.sent.pass(p)
	if len(out) == 0 {
		return len(p), nil
	}
	if n, err := h.Conn.Write(out); err != nil {
		return min(n, len(p)), err
	}
	return len(p), nil
}

// Close implements net.Conn.
func (h *heard) Close() error {
	h.settle(0)
	return h.Conn.Close()
}

// settle tells of the calls that were opened and not announced, but for those whose headers are still under way.
func (h *heard) settle(under int64) {
	announced := h.calls.announced.Load() // before opened, which it never exceeds
	missed, told := h.calls.opened.Load()-announced-under, h.calls.told.Load()
	if missed > told && h.calls.told.CompareAndSwap(told, missed) {
		for range missed - told {
			h.early.count.Add()
		}
		h.early.note(int(missed-told), h.RemoteAddr(), h.attrs...)
	}
}

// scan takes note of the frames in p, or that they are none.
func (h *heard) scan(p []byte) {
	for len(p) > 0 && !h.garbage {
		if missing := http2.ClientPreface[h.greeted:]; missing != "" {
			n := min(len(missing), len(p))
			if string(p[:n]) != missing[:n] {
				h.refuse()
			}
			h.greeted += n
			p = p[n:]
			continue
		}
		if h.skip > 0 {
			n := min(h.skip, len(p))
			h.skip -= n
			p = p[n:]
			if h.skip > 0 {
				return
			}
			h.over()
			continue
		}
		n := copy(h.header[h.have:], p)
		h.have += n
		p = p[n:]
		if h.have < frameHeader {
			return
		}
		h.have = 0
		h.begin()
		if h.skip == 0 {
			h.over()
		}
	}
}

// begin takes note of the frame whose header has come.
func (h *heard) begin() {
	h.skip = int(h.header[0])<<16 | int(h.header[1])<<8 | int(h.header[2])
	kind, flags := http2.FrameType(h.header[3]), http2.Flags(h.header[4])
	stream := binary.BigEndian.Uint32(h.header[5:]) & (1<<31 - 1)
	if h.skip > maxFrame || !h.begun && kind != http2.FrameSettings {
		h.refuse()
		return
	}
	h.begun = true
	switch {
	case kind == http2.FrameHeaders && stream > h.newest:
		h.newest, h.inside = stream, true
		h.calls.opened.Add(1)
		h.ending = flags.Has(http2.FlagHeadersEndHeaders)
	case kind == http2.FrameContinuation && h.inside:
		h.ending = flags.Has(http2.FlagContinuationEndHeaders)
	}
}

// refuse tells of a connection that grpc-go closes, because it does not begin as HTTP/2 does or has a frame that is too large.
func (h *heard) refuse() {
	h.garbage = true
	h.connections.add(refusedProtocol, h.RemoteAddr(), nil, h.attrs...)
}

// over takes note that a frame has come whole.
func (h *heard) over() {
	if h.ending {
		h.inside, h.ending = false, false
	}
}
