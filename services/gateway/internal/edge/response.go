package edge

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// lingering is how long the rest of a request is waited for that was answered before its end. Who hears the answer only
// after all was sent gets it; who never ends holds nothing.
const lingering = time.Second

// countingWriter knows what was answered. Over HTTP/1.1 it ends the connection of a request that is answered before it was
// read to its end: what is left of it must not be taken for the next one, and the end of the waiting for it would look to
// net/http as if the caller had left, which takes the context of every later request on the connection with it.
type countingWriter struct {
	http.ResponseWriter
	code  int // 0 until the headers are written
	http1 bool
	body  *wireBody
	// request is net/http's own: what its body is at the end decides how the connection ends.
	request *http.Request
}

// newCountingWriter returns the writer of the answer to r, and has it see r's body.
func newCountingWriter(w http.ResponseWriter, r *http.Request) *countingWriter {
	c := &countingWriter{ResponseWriter: w, http1: r.ProtoMajor == 1, body: &wireBody{ReadCloser: r.Body}, request: r}
	if r.Body == nil || r.Body == http.NoBody {
		c.body.ended.Store(true)
	} else {
		r.Body = c.body
	}
	return c
}

// WriteHeader implements http.ResponseWriter.
func (w *countingWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
		if w.http1 && (w.body.broken.Load() || !w.body.hasEnded()) {
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *countingWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher, which the gRPC server asks for.
func (w *countingWriter) Flush() {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // it fails where the caller has left
}

// linger bounds the time that net/http waits for the rest of a request that is answered. It gives it its own body back:
// only by that it knows that some is left, and closes the connection in a way in which the answer still arrives.
func (w *countingWriter) linger() {
	if w.http1 && !w.body.hasEnded() {
		w.request.Body = w.body.ReadCloser
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(lingering)) // else there is no waiting
	}
}

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// breakOff ends a read of the body that waits, and those that come.
func (w *countingWriter) breakOff() {
	w.body.broken.Store(true)
	_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Unix(1, 0)) // where it fails, the caller ends it
}

// wireBody is the body of a request that knows whether it was read to its end.
type wireBody struct {
	io.ReadCloser
	ended  atomic.Bool
	broken atomic.Bool // the reading was broken off, which the end may have forestalled
}

// Read implements io.Reader.
func (b *wireBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

func (b *wireBody) hasEnded() bool { return b.ended.Load() }
