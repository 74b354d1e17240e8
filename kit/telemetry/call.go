package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Call is the line of the log that tells what became of a call. What is "" is left out, unless it says otherwise.
type Call struct {
	// At is when it ended: the time of the line, except where the line goes through slog, which has its own.
	At time.Time
	// Method is the name on the wire. It is always there.
	Method string
	// Code is the name of the status code. It is always there.
	Code string
	// Took is how long the call took.
	Took time.Duration
	// RequestID is always there.
	RequestID string
	// TraceID is the trace that the call is part of.
	TraceID string
	// Reason is that of the fault, Fields what it complains of in the request, Details what it told the caller beside it.
	Reason, Fields, Details string
	// Cause is what the caller was not told; Panic and Stack are of a handler that broke.
	Cause, Panic, Stack string
	// Peer is the name at the other end of the connection. It is always there.
	Peer string
	// Client is what the client says it is; see ClientOf.
	Client string
	// User is whose access token the call came with.
	User string
	// Address is where the call came from. It is always there.
	Address string
	// The numbers of messages, and their payload in bytes, uncompressed.
	Received, ReceivedBytes, Sent, SentBytes int64
}

// maxLogged bounds what a caller can put into a line, in bytes.
const maxLogged = 256

const callMessage = "call"

// LogCall writes the line. On a logger of Log it is put together in place, without a copy and, but for the numbers of rare
// lines, without memory of its own; on any other it goes through slog, and says the same.
func LogCall(ctx context.Context, log *slog.Logger, level slog.Level, c *Call) {
	if len(c.Method) > maxLogged {
		c.Method = c.Method[:maxLogged]
	}
	h, ok := log.Handler().(*logHandler)
	if !ok || h.groups {
		log.LogAttrs(ctx, level, callMessage, c.attrs()...)
		return
	}
	l := h.log
	l.mu.Lock()
	if l.cfg.JSON {
		l.buf = c.appendJSON(l.buf, level, h.prefix)
	} else {
		l.buf = c.appendText(l.buf, level, h.prefix)
	}
	now := l.flushLater()
	l.mu.Unlock()
	if now || level >= slog.LevelError {
		_ = l.Flush() // Close tells of the error
	}
}

// field is one attribute of the line: a text, or where key is one of a number, that.
type field struct {
	key    string
	text   string
	number int64
	kind   kind
}

type kind byte

const (
	always   kind = iota // a text, also where it is empty
	optional             // a text, where it is not
	duration
	number
)

// fieldCount is how many fields a line has at most.
const fieldCount = 19

func (c *Call) fields() [fieldCount]field {
	return [...]field{
		{key: "method", text: c.Method},
		{key: "code", text: c.Code},
		{key: "took", number: int64(c.Took.Round(time.Microsecond)), kind: duration},
		{key: "request_id", text: c.RequestID},
		{key: "trace_id", text: c.TraceID, kind: optional},
		{key: "reason", text: c.Reason, kind: optional},
		{key: "fields", text: c.Fields, kind: optional},
		{key: "details", text: c.Details, kind: optional},
		{key: "cause", text: c.Cause, kind: optional},
		{key: "panic", text: c.Panic, kind: optional},
		{key: "stack", text: c.Stack, kind: optional},
		{key: "peer", text: c.Peer},
		{key: "client", text: c.Client, kind: optional},
		{key: "user", text: c.User, kind: optional},
		{key: "address", text: c.Address},
		{key: "received", number: c.Received, kind: number},
		{key: "received_bytes", number: c.ReceivedBytes, kind: number},
		{key: "sent", number: c.Sent, kind: number},
		{key: "sent_bytes", number: c.SentBytes, kind: number},
	}
}

func (c *Call) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, fieldCount)
	for _, f := range c.fields() {
		switch {
		case f.kind == optional && f.text == "":
		case f.kind == number:
			attrs = append(attrs, slog.Int64(f.key, f.number))
		case f.kind == duration:
			attrs = append(attrs, slog.Duration(f.key, time.Duration(f.number)))
		default:
			attrs = append(attrs, slog.String(f.key, f.text))
		}
	}
	return attrs
}

func (c *Call) appendText(b []byte, level slog.Level, prefix string) []byte {
	b = append(b, "time="...)
	b = appendMillis(b, c.At)
	b = append(b, " level="...)
	b = append(b, level.String()...)
	b = append(b, " msg="+callMessage...)
	b = append(b, prefix...)
	fields := c.fields()
	for i := range fields {
		f := &fields[i]
		if f.kind == optional && f.text == "" {
			continue
		}
		b = append(b, ' ')
		b = append(b, f.key...)
		b = append(b, '=')
		switch f.kind {
		case number:
			b = strconv.AppendInt(b, f.number, 10)
		case duration:
			b = appendDuration(b, time.Duration(f.number))
		default:
			if plain(f.text) {
				b = append(b, f.text...)
			} else {
				b = strconv.AppendQuote(b, f.text)
			}
		}
	}
	return append(b, '\n')
}

func (c *Call) appendJSON(b []byte, level slog.Level, prefix string) []byte {
	b = append(b, `{"time":"`...)
	b = c.At.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"`...)
	b = append(b, level.String()...)
	b = append(b, `","msg":"`+callMessage+`"`...)
	b = append(b, prefix...)
	fields := c.fields()
	for i := range fields {
		f := &fields[i]
		if f.kind == optional && f.text == "" {
			continue
		}
		b = append(b, ',', '"')
		b = append(b, f.key...)
		b = append(b, '"', ':')
		if f.kind == number || f.kind == duration {
			b = strconv.AppendInt(b, f.number, 10)
		} else {
			b = appendJSONString(b, f.text)
		}
	}
	return append(b, '}', '\n')
}

// appendMillis appends a time as slog's text has it: RFC 3339 with three decimals. Package time is quick at RFC3339Nano only,
// which drops zeros from the end: so it gets a fourth decimal that is none, which is cut out again.
func appendMillis(b []byte, t time.Time) []byte {
	fourth := len(b) + len("2006-01-02T15:04:05.000")
	b = t.Truncate(time.Millisecond).Add(100*time.Microsecond).AppendFormat(b, time.RFC3339Nano)
	return append(b[:fourth], b[fourth+1:]...)
}

// appendDuration appends what Duration.String returns, for durations in whole microseconds.
func appendDuration(b []byte, d time.Duration) []byte {
	switch {
	case d > 0 && d < time.Millisecond:
		b = strconv.AppendInt(b, int64(d/time.Microsecond), 10)
		return append(b, "µs"...)
	case d >= time.Millisecond && d < time.Second:
		b = strconv.AppendInt(b, int64(d/time.Millisecond), 10)
		if rest := int64(d % time.Millisecond / time.Microsecond); rest > 0 {
			digits := [...]byte{'.', byte('0' + rest/100), byte('0' + rest/10%10), byte('0' + rest%10)}
			b = append(b, bytes.TrimRight(digits[:], "0")...)
		}
		return append(b, "ms"...)
	default:
		return append(b, d.String()...)
	}
}

// plain reports whether slog's text has the value without quotes.
func plain(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b <= ' ' || b == '"' || b == '=' || b == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return false
		}
		i += size
	}
	return true
}

func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return appendEscaped(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendEscaped is the rare case.
func appendEscaped(b []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return append(b, `""`...) // a string has no error to make
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}
