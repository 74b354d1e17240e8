package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// LogConfig says how a Log looks. Out is required.
type LogConfig struct {
	// Out is where lines go, each whole.
	Out io.Writer
	// Level is the least that is logged.
	Level slog.Level
	// JSON makes each line an object; otherwise it is slog's text.
	JSON bool
}

// The bounds of what waits to be written.
const (
	flushAfter = 100 * time.Millisecond
	flushSize  = 16 << 10 // bytes
)

// Log is the log of a process. Lines wait in memory, for a tenth of a second at most, so that a call does not wait for a
// write; a line of level ERROR is written at once, with all before it. Close writes the rest. It is safe for concurrent use.
type Log struct {
	cfg LogConfig

	mu    sync.Mutex // guards what follows
	buf   []byte     // whole lines
	timer *time.Timer
	armed bool
	lost  error // the first write that failed

	writing sync.Mutex // held while lines are written, so that they stay in order
	spare   []byte     // guarded by writing
}

// NewLog returns a Log. Its owner calls Close.
func NewLog(cfg LogConfig) *Log { return &Log{cfg: cfg} }

// Logger returns the logger whose lines the Log writes. Its lines look as those of slog's own handlers do.
func (l *Log) Logger() *slog.Logger {
	return slog.New(&logHandler{log: l, Handler: l.handler(lineWriter{l}, nil)})
}

func (l *Log) handler(w io.Writer, replace func([]string, slog.Attr) slog.Attr) slog.Handler {
	opts := &slog.HandlerOptions{Level: l.cfg.Level, ReplaceAttr: replace}
	if l.cfg.JSON {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// Flush writes what waits.
func (l *Log) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lines := l.buf
	l.buf = l.spare[:0]
	l.armed = false
	l.mu.Unlock()
	if len(lines) > 0 {
		if _, err := l.cfg.Out.Write(lines); err != nil {
			l.mu.Lock()
			if l.lost == nil {
				l.lost = err
			}
			l.mu.Unlock()
		}
	}
	l.spare = lines[:0]
	if cap(l.spare) > 4*flushSize {
		l.spare = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Close writes what waits. It returns the first error of a write, which concerns lines that are lost. Lines that come later
// are written as before.
func (l *Log) Close() error { return l.Flush() }

// flushLater sees to it that what waits is written. The caller holds mu. It reports whether it should be written now.
func (l *Log) flushLater() (now bool) {
	if len(l.buf) >= flushSize {
		return true
	}
	if !l.armed {
		l.armed = true
		if l.timer == nil {
			l.timer = time.AfterFunc(flushAfter, func() { _ = l.Flush() }) // Close tells of the error
		} else {
			l.timer.Reset(flushAfter)
		}
	}
	return false
}

// lineWriter takes the lines of slog's handlers, which write each with one call.
type lineWriter struct{ log *Log }

func (w lineWriter) Write(line []byte) (int, error) {
	w.log.mu.Lock()
	w.log.buf = append(w.log.buf, line...)
	now := w.log.flushLater()
	w.log.mu.Unlock()
	if now {
		return len(line), w.log.Flush()
	}
	return len(line), nil
}

// logHandler is slog's own handler, with a short way for the lines of calls.
type logHandler struct {
	slog.Handler
	log    *Log
	prefix string // the attributes of With, as they look in a line
	groups bool   // WithGroup was called: there is no short way
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelError {
		err = errors.Join(err, h.log.Flush())
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithAttrs(attrs)
	c.prefix += h.log.render(attrs)
	return &c
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithGroup(name)
	c.groups = c.groups || name != ""
	return &c
}

// render returns the attributes as slog's handler writes them in a line, with what parts them from what is before.
func (l *Log) render(attrs []slog.Attr) string {
	var b bytes.Buffer
	bare := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && slices.Contains([]string{slog.LevelKey, slog.MessageKey}, a.Key) {
			return slog.Attr{}
		}
		return a
	}
	r := slog.NewRecord(time.Time{}, slog.LevelError, "", 0)
	// A buffer takes everything; what slog itself cannot render it says in the line.
	_ = l.handler(&b, bare).WithAttrs(attrs).Handle(context.Background(), r)
	line := strings.TrimSuffix(b.String(), "\n")
	if l.cfg.JSON {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "{"), "}")
	}
	switch {
	case line == "":
		return ""
	case l.cfg.JSON:
		return "," + line
	default:
		return " " + line
	}
}
