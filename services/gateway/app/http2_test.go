package app

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Conn is a connection whose frames are the test's own.
type http2Conn struct {
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder // to block
}

func dialHTTP2(t *testing.T, address string) *http2Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return overHTTP2(t, conn)
}

func overHTTP2(t *testing.T, conn net.Conn) *http2Conn {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &http2Conn{conn: conn, framer: http2.NewFramer(conn, conn)}
	c.hpack, c.framer.ReadMetaHeaders = hpack.NewEncoder(&c.block), hpack.NewDecoder(4096, nil)
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks for /healthz with headers of about so many bytes, and waits for the end of the answer.
func (c *http2Conn) get(t *testing.T, stream uint32, size int) {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/healthz"},
	}
	for ; size > 0; size -= 1000 {
		fields = append(fields, hpack.HeaderField{Name: "x-filler", Value: strings.Repeat("~", min(size, 1000)), Sensitive: true})
	}
	for _, f := range fields {
		if err := enc.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	for first := true; first || block.Len() > 0; first = false {
		part := block.Next(16000)
		var err error
		if first {
			err = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true, EndHeaders: block.Len() == 0})
		} else {
			err = c.framer.WriteContinuation(stream, block.Len() == 0, part)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h := f.Header(); h.StreamID == stream && h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) {
			return
		}
	}
}

// emptyMessage is one as gRPC frames it.
const emptyMessage = "\x00\x00\x00\x00\x00"

// ask sends a request and returns the fields of the answer and of its trailers, and the body.
func (c *http2Conn) ask(t *testing.T, stream uint32, body string, fields ...string) map[string]string {
	t.Helper()
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true}),
		c.framer.WriteData(stream, true, []byte(body)),
	)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(map[string]string)
	for over := false; !over; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				answer[field.Name] = field.Value
			}
			over = f.StreamEnded()
		case *http2.DataFrame:
			answer["body"] += string(f.Data())
			over = f.StreamEnded()
		case *http2.RSTStreamFrame:
			t.Fatalf("the stream is reset: %v", f.ErrCode)
		}
	}
	return answer
}
