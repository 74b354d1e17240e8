package edge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// duplex stands on both sides of the transcoder. The gRPC server behind the transcoder reads the request in one
// goroutine and writes the response in another, and the transcoder, which answers a request that it cannot decode right
// where it reads it, then writes to the same maps from both. Here its code runs in one goroutine at a time; only the
// waiting for the network happens beside it. It also ends the reading when the response is finished, which the
// transcoder by itself would wait for, and holds messages to their limit before anything of them is kept.
//
//	caller ── callerBody, callerWriter ── transcoder ── serverBody, serverWriter ── gRPC server
type duplex struct {
	origin *forward.Origin

	mu      sync.Mutex // held while the transcoder's code runs
	reading bool       // whether it runs for the reader

	wire sync.Mutex // held while something is written to the caller
}

// frames is what is known of a body of frames before it is read.
type frames struct {
	limit     int         // of a message, in bytes
	single    bool        // there is one
	ended     func() bool // whether the body was read to its end
	interrupt func()      // ends a read that waits
	whole     func()      // hears that the one message was read to its end
}

// serve runs the transcoder over a request. f is nil where the body is in memory.
func (d *duplex) serve(transcoder http.Handler, w http.ResponseWriter, r *http.Request, f *frames) {
	body := &callerBody{duplex: d, body: r.Body, frames: f}
	r = r.WithContext(withDuplex(r.Context(), d, body))
	r.Body = body
	d.mu.Lock()
	defer d.mu.Unlock()
	transcoder.ServeHTTP(&callerWriter{ResponseWriter: w, duplex: d, control: http.NewResponseController(w)}, r)
}

// outside runs what waits for the network while the transcoder's code may run for the other goroutine.
func (d *duplex) outside(do func()) {
	reading := d.reading
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.reading = reading
	}()
	do()
}

// inside runs the transcoder's code.
func (d *duplex) inside(reading bool, do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading = reading
	do()
}

// server is the handler behind the transcoder.
func (d *duplex) server(rpc http.Handler, body *callerBody, w http.ResponseWriter, r *http.Request) {
	sw := &serverWriter{duplex: d, w: w, header: make(http.Header)}
	r = r.WithContext(r.Context())
	r.Body = &serverBody{duplex: d, body: r.Body, caller: body}
	d.outside(func() { rpc.ServeHTTP(sw, r) })
	sw.finish()
}

// callerBody is the body as it comes off the network.
type callerBody struct {
	duplex *duplex
	body   io.ReadCloser
	frames *frames // nil where it is in memory

	frame bytes.Buffer // what is left of the frame that was read
	err   error        // why there is no further one
}

const frameHeader = 5 // a byte of flags, four of length

// Read implements io.Reader for the transcoder, which calls it with duplex.mu held.
func (b *callerBody) Read(p []byte) (n int, err error) {
	if b.frames == nil {
		b.duplex.outside(func() { n, err = b.body.Read(p) })
		return n, err
	}
	if b.frame.Len() == 0 {
		if b.err == nil {
			b.duplex.outside(func() { b.err = b.readFrame() })
		}
		if b.frame.Len() == 0 && b.err != nil {
			return 0, b.err
		}
	}
	return b.frame.Read(p)
}

// readFrame reads a frame as a whole; memory grows with what has come, not with what is announced. Where there is one, it
// also waits for the end of the body: an answer before that would cost the caller the connection.
func (b *callerBody) readFrame() error {
	b.frame.Reset()
	if _, err := io.CopyN(&b.frame, b.body, frameHeader); err != nil {
		return b.late(err)
	}
	length := binary.BigEndian.Uint32(b.frame.Bytes()[1:])
	if int64(length) > int64(b.frames.limit) {
		return b.fail(forward.ErrTooLarge)
	}
	_, err := io.CopyN(&b.frame, b.body, int64(length))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil || !b.frames.single {
		return b.late(err)
	}
	switch n, err := io.CopyN(io.Discard, b.body, 1); {
	case n > 0:
		return b.fail(forward.ErrMalformed) // there is more than one message
	case errors.Is(err, io.EOF):
		b.frames.whole()
		return io.EOF
	default:
		return b.late(err)
	}
}

// late passes an error of a read on; that its time was over is the caller's fault, and is said so.
func (b *callerBody) late(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && b.frames.single {
		return b.fail(errSlow)
	}
	return err
}

// fail ends the call with a fault, and the body.
func (b *callerBody) fail(f *fault.Fault) error {
	b.frame.Reset()
	b.duplex.origin.Fail(f)
	return io.EOF
}

// Close implements io.Closer for the transcoder.
func (b *callerBody) Close() (err error) {
	b.duplex.outside(func() { err = b.body.Close() })
	return err
}

// callerWriter is the response as it goes to the network.
type callerWriter struct {
	http.ResponseWriter
	duplex  *duplex
	control *http.ResponseController
}

// writeTimeout is how long a caller may take to take what is written.
const writeTimeout = time.Minute

// noteRefusal: what is written for the reader is the transcoder's answer to a request that it cannot decode. The
// forwarder then must not take the end of what it reads for the end of the request.
func (w *callerWriter) noteRefusal() {
	if w.duplex.reading {
		w.duplex.origin.Fail(forward.ErrMalformed)
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *callerWriter) WriteHeader(code int) {
	w.noteRefusal()
	w.duplex.wire.Lock()
	defer w.duplex.wire.Unlock()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *callerWriter) Write(p []byte) (n int, err error) {
	w.noteRefusal()
	w.duplex.outside(func() { n, err = w.write(p) })
	return n, err
}

func (w *callerWriter) write(p []byte) (int, error) {
	w.duplex.wire.Lock()
	defer w.duplex.wire.Unlock()
	// Where there are no deadlines, a caller that takes nothing is bounded by its connection.
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	defer func() { _ = w.control.SetWriteDeadline(time.Time{}) }()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *callerWriter) Flush() {
	w.duplex.outside(func() {
		w.duplex.wire.Lock()
		defer w.duplex.wire.Unlock()
		_ = w.control.Flush() // it fails where the caller has left
	})
}

// Unwrap is for http.ResponseController.
func (w *callerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serverBody is the body as the gRPC server reads it: transcoded.
type serverBody struct {
	duplex *duplex
	body   io.ReadCloser
	caller *callerBody

	reading sync.Mutex // held during Read
	closed  bool
}

var errClosed = errors.New("the body is closed")

// Read implements io.Reader.
func (b *serverBody) Read(p []byte) (n int, err error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed {
		return 0, errClosed
	}
	b.duplex.inside(true, func() { n, err = b.body.Read(p) })
	return n, err
}

// Close implements io.Closer. It ends a Read that waits.
func (b *serverBody) Close() (err error) {
	// What has not ended may never: neither a Read may wait for it, nor the Close below, which looks for the end.
	if f := b.caller.frames; f != nil && !f.ended() {
		f.interrupt()
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	b.closed = true
	b.duplex.inside(false, func() { err = b.body.Close() })
	return err
}

// serverWriter is the response as the gRPC server writes it: to be transcoded. Its headers are its own until they are
// needed.
type serverWriter struct {
	duplex *duplex
	w      http.ResponseWriter
	header http.Header
	sent   http.Header // what header held when it was sent
}

// Header implements http.ResponseWriter.
func (w *serverWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *serverWriter) WriteHeader(code int) {
	if w.sent != nil {
		return
	}
	w.sent = w.header.Clone()
	w.duplex.inside(false, func() {
		w.copyTo(w.w.Header(), w.sent)
		w.w.WriteHeader(code)
	})
}

// Write implements io.Writer.
func (w *serverWriter) Write(p []byte) (n int, err error) {
	w.WriteHeader(http.StatusOK)
	w.duplex.inside(false, func() { n, err = w.w.Write(p) })
	return n, err
}

// Flush implements http.Flusher. The transcoder flushes by itself, after each message.
func (w *serverWriter) Flush() {}

// finish passes on what came after the headers: the trailers. duplex.mu is held.
func (w *serverWriter) finish() {
	late := make(http.Header)
	for name, values := range w.header {
		if _, was := w.sent[name]; !was || strings.HasPrefix(name, http.TrailerPrefix) {
			late[name] = values
		}
	}
	w.copyTo(w.w.Header(), late)
}

func (w *serverWriter) copyTo(dst, src http.Header) {
	for name, values := range src {
		if values != nil { // nil suppresses a header of net/http; ours keeps its Date
			dst[name] = slices.Clone(values)
		}
	}
}

type duplexKey struct{}

type duplexValue struct {
	duplex *duplex
	body   *callerBody
}

func withDuplex(ctx context.Context, d *duplex, body *callerBody) context.Context {
	return context.WithValue(ctx, duplexKey{}, duplexValue{d, body})
}

func duplexFrom(ctx context.Context) (*duplex, *callerBody) {
	v := ctx.Value(duplexKey{}).(duplexValue) // serve has put it there
	return v.duplex, v.body
}
