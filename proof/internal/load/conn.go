// Package load calls a gRPC server as fast, or as often, as it is told to, and says what came of it. Its client speaks no
// more of HTTP/2 than a load needs: stock grpc-go costs a client more per call than it costs the server, so that on equal
// cores it would measure itself, and every server would look as fast as the next.
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Frame types and flags of HTTP/2 (RFC 9113 section 6), as far as they come up.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagAck        = 0x1 // of settings and ping
	flagEndStream  = 0x1 // of data and headers
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	settingMaxStreams    = 0x3
	settingInitialWindow = 0x4

	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	ourWindow     = 1<<31 - 1 // of each stream and of the connection
	refill        = 1 << 28   // bytes, after which windows are opened again
	maxFrame      = 16 << 10  // either way; the default
	defaultWindow = 1<<16 - 1
	cancelled     = 0x8 // the error code CANCEL
)

// Request is a call that is made over and over.
type Request struct {
	// Method is the full name, "/package.Service/Method".
	Method string
	// Message is the encoded request message.
	Message []byte
	// Choose returns the encoded message of the next call instead, where it is set. It is called from several goroutines at
	// once, and what it returns must not change.
	Choose func() []byte
	// Check returns an error where the encoded answer of a call that ended well is not what it must be: the call counts as failed
	// then. None means that any answer will do. It is called as Choose is, and keeps nothing of what it is given.
	Check func(answer []byte) error
	// Token is the access token, "" for none.
	Token string
	// Timeout is what the call says that it will wait, in whole milliseconds.
	Timeout time.Duration
}

// Status is how a call ended.
type Status struct {
	// Code is the gRPC status code.
	Code int
	// Message is the text beside it.
	Message string
}

// Conn is one connection to a server. One goroutine reads it; several may send.
type Conn struct {
	raw net.Conn
	in  *bufio.Reader
	dec *hpack.Decoder
	got Status // of the header block that is being decoded

	received int64 // bytes of data since windows were last opened

	mu         sync.Mutex
	out        []byte // what the next flush writes
	block      []byte // the encoded headers of the request, once the server knows them
	headers    bytes.Buffer
	enc        *hpack.Encoder
	blockOf    *Request
	next       uint32 // id of the next stream
	sendWindow int64  // bytes that the server takes now
	maxStreams uint32
}

// Dial connects to the server at address. What it reads and writes fails after ctx ends.
func Dial(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	raw, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	return NewConn(ctx, raw)
}

// NewConn begins HTTP/2 on a connection, which it takes over. What it reads and writes fails after ctx ends.
func NewConn(ctx context.Context, raw net.Conn) (*Conn, error) {
	c := &Conn{raw: raw, in: bufio.NewReaderSize(raw, 64<<10), next: 1, sendWindow: defaultWindow, maxStreams: 1<<32 - 1}
	c.enc = hpack.NewEncoder(&c.headers)
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			if n, err := strconv.Atoi(f.Value); err == nil {
				c.got.Code = n
			}
		case "grpc-message":
			c.got.Message = f.Value
		}
	})
	context.AfterFunc(ctx, func() { _ = raw.Close() })
	c.out = append(c.out, preface...)
	c.frame(6, frameSettings, 0, 0)
	c.out = binary.BigEndian.AppendUint16(c.out, settingInitialWindow)
	c.out = binary.BigEndian.AppendUint32(c.out, ourWindow)
	c.openWindow(0, ourWindow-defaultWindow)
	if err := c.Flush(); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// Close ends the connection, and with it every call on it.
func (c *Conn) Close() error { return c.raw.Close() }

// frame begins a frame; its payload follows. The caller holds mu.
func (c *Conn) frame(length int, kind, flags byte, stream uint32) {
	c.out = appendHead(c.out, length, kind, flags, stream)
}

// appendHead appends what a frame begins with.
func appendHead(out []byte, length int, kind, flags byte, stream uint32) []byte {
	out = append(out, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(out, stream)
}

func (c *Conn) openWindow(stream uint32, by uint32) {
	c.frame(4, frameWindowUpdate, 0, stream)
	c.out = binary.BigEndian.AppendUint32(c.out, by)
}

// Flush writes what was sent.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.raw.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// errWindow: the server takes no more at the moment.
var errWindow = errors.New("the server's window is full")

// Send begins a call, with the message and the end of what we say; Flush writes it. It returns the id of the stream. One
// Conn sends one request all the time.
func (c *Conn) Send(r *Request) (stream uint32, err error) {
	message := r.Message
	if r.Choose != nil {
		message = r.Choose()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := prefix + len(message)
	if size > maxFrame {
		return 0, fmt.Errorf("send: a request of %d bytes does not fit into a frame", len(message))
	}
	if int64(size) > c.sendWindow {
		return 0, errWindow
	}
	c.sendWindow -= int64(size)
	stream = c.open(r)
	c.data(stream, message, flagEndStream)
	return stream, nil
}

// open sends the headers of a call. The caller holds mu.
func (c *Conn) open(r *Request) (stream uint32) {
	stream = c.next
	c.next += 2
	block := c.block
	if c.blockOf != r {
		block = c.encode(r)
		if c.blockOf == nil {
			c.blockOf = r
			first := slices.Clone(block)
			c.block = slices.Clone(c.encode(r)) // all of it is in the server's table now, so every later one is the same
			block = first
		}
	}
	c.frame(len(block), frameHeaders, flagEndHeaders, stream)
	c.out = append(c.out, block...)
	return stream
}

// data sends a message. The caller holds mu.
func (c *Conn) data(stream uint32, message []byte, flags byte) {
	c.frame(prefix+len(message), frameData, flags, stream)
	c.out = append(c.out, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(message)))
	c.out = append(c.out, message...)
}

// begin begins a stream whose messages follow; Flush writes it.
func (c *Conn) begin(r *Request) (stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open(r)
}

// message sends one more message of a stream; Flush writes it.
func (c *Conn) message(stream uint32, message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := prefix + len(message)
	if size > maxFrame {
		return fmt.Errorf("send: a message of %d bytes does not fit into a frame", len(message))
	}
	if int64(size) > c.sendWindow {
		return errWindow
	}
	c.sendWindow -= int64(size)
	c.data(stream, message, 0)
	return nil
}

// finish says that no message of ours follows; Flush writes it.
func (c *Conn) finish(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame(0, frameData, flagEndStream, stream)
}

// Cancel ends a call from our side; Flush writes it.
func (c *Conn) Cancel(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame(4, frameReset, 0, stream)
	c.out = binary.BigEndian.AppendUint32(c.out, cancelled)
}

// encode returns the header block of a request. It is valid until the next one.
func (c *Conn) encode(r *Request) []byte {
	c.headers.Reset()
	for _, f := range fields(r) {
		_ = c.enc.WriteField(f) // into memory
	}
	return c.headers.Bytes()
}

// fields returns the headers of a request, as grpc-go's client sends them.
func fields(r *Request) []hpack.HeaderField {
	list := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: r.Method}, {Name: ":authority", Value: "users"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "proof"}, {Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: strconv.FormatInt(r.Timeout.Milliseconds(), 10) + "m"},
	}
	if r.Token != "" {
		list = append(list, hpack.HeaderField{Name: "authorization", Value: "Bearer " + r.Token})
	}
	return list
}

// Event is what the server said of one call.
type Event struct {
	// Stream is the id of the call.
	Stream uint32
	// Data is a part of the answer, valid until the next Read.
	Data []byte
	// Room is how many bytes more the server takes of us in the call.
	Room int64
	// Ended is true at the end of the call; Status then says how it ended.
	Ended  bool
	Status Status
}

// Read returns the next event. It answers by itself what concerns the connection, and writes what was sent whenever it
// would have to wait for the server.
func (c *Conn) Read() (Event, error) {
	for {
		if c.in.Buffered() == 0 {
			if err := c.Flush(); err != nil {
				return Event{}, err
			}
		}
		head, err := c.in.Peek(9)
		if err != nil {
			return Event{}, fmt.Errorf("read: %w", err)
		}
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		kind, flags := head[3], head[4]
		stream := binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1)
		if length > maxFrame {
			return Event{}, fmt.Errorf("read: a frame of %d bytes", length)
		}
		all, err := c.in.Peek(9 + length) // a frame fits into the buffer
		if err != nil {
			return Event{}, fmt.Errorf("read: %w", err)
		}
		_, _ = c.in.Discard(len(all)) // what was peeked at is there
		e, ok, err := c.handle(kind, flags, stream, all[9:])
		if err != nil || ok {
			return e, err
		}
	}
}

// handle returns the event of a frame, if it is one.
func (c *Conn) handle(kind, flags byte, stream uint32, payload []byte) (e Event, ok bool, err error) {
	if (kind == frameData || kind == frameHeaders) && flags&flagPadded != 0 {
		return e, false, errors.New("read: a padded frame, which grpc-go does not send")
	}
	switch kind {
	case frameData:
		if c.received += int64(len(payload)); c.received >= refill {
			c.mu.Lock()
			c.openWindow(0, uint32(c.received))
			if flags&flagEndStream == 0 {
				c.openWindow(stream, uint32(c.received)) // loads with that much data have one stream a connection
			}
			c.mu.Unlock()
			c.received = 0
		}
		return Event{Stream: stream, Data: payload}, true, nil
	case frameHeaders:
		if flags&flagEndHeaders == 0 {
			return e, false, errors.New("read: headers in several frames, which grpc-go does not send for so few")
		}
		c.got = Status{Code: -1, Message: "the answer ended without a grpc-status"}
		if _, err := c.dec.Write(payload); err != nil {
			return e, false, fmt.Errorf("read headers: %w", err)
		}
		if err := c.dec.Close(); err != nil {
			return e, false, fmt.Errorf("read headers: %w", err)
		}
		return Event{Stream: stream, Ended: true, Status: c.got}, flags&flagEndStream != 0, nil
	case frameReset:
		return Event{Stream: stream, Ended: true, Status: Status{Code: -1, Message: fmt.Sprintf("the server reset the stream: %x", payload)}}, true, nil
	case frameGoAway:
		return e, false, fmt.Errorf("read: the server goes away: %q", payload)
	case frameSettings:
		return e, false, c.settings(flags, payload)
	case framePing:
		if flags&flagAck == 0 {
			c.mu.Lock()
			c.frame(len(payload), framePing, flagAck, 0)
			c.out = append(c.out, payload...)
			c.mu.Unlock()
		}
	case frameWindowUpdate:
		if stream == 0 && len(payload) == 4 {
			c.mu.Lock()
			c.sendWindow += int64(binary.BigEndian.Uint32(payload) & (1<<31 - 1))
			c.mu.Unlock()
		} else if len(payload) == 4 {
			return Event{Stream: stream, Room: int64(binary.BigEndian.Uint32(payload) & (1<<31 - 1))}, true, nil
		}
	}
	return e, false, nil
}

func (c *Conn) settings(flags byte, payload []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	if len(payload)%6 != 0 {
		return fmt.Errorf("read: settings of %d bytes", len(payload))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := payload; len(p) > 0; p = p[6:] {
		if binary.BigEndian.Uint16(p) == settingMaxStreams {
			c.maxStreams = binary.BigEndian.Uint32(p[2:])
		}
	}
	c.frame(0, frameSettings, flagAck, 0)
	return nil
}

// MaxStreams returns how many calls the server takes at once, as far as it has said so.
func (c *Conn) MaxStreams() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maxStreams
}
