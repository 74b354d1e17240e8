package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var stamp = regexp.MustCompile(`time=\S+|"time":"[^"]+"`)

func TestALineOfACallLooksAsSlogWouldWriteIt(t *testing.T) {
	full := Call{
		At: time.Now(), Method: "/users.v1.UserService/GetUser", Code: "Internal", Took: 1234567 * time.Nanosecond, RequestID: "r-1", TraceID: "0af7",
		Reason: "INTERNAL", Fields: "a.b r1, c r2", Details: "k=v", Cause: "line 1\nline \"2\" \\ é <b>\x00", Panic: "x=1", Stack: "goroutine 1\n\tmain.go:1",
		Peer: "gateway", Client: "shop/v1.2", User: "u1", Address: "::1", Received: 1, ReceivedBytes: 20, Sent: 2, SentBytes: 1 << 40,
	}
	bare := Call{At: time.Now(), Method: "/a/b", Code: "OK", RequestID: "r"}
	for name, tc := range map[string]struct {
		call  Call
		level slog.Level
		with  func(*slog.Logger) *slog.Logger
	}{
		"everything":               {full, slog.LevelError, nil},
		"nothing that is optional": {bare, slog.LevelInfo, nil},
		"with attributes": {bare, slog.LevelDebug, func(l *slog.Logger) *slog.Logger {
			return l.With("service", "users", "n", 1).With(slog.Group("g", "a b", "c d"), "took", time.Second)
		}},
		"in a group": {full, slog.LevelInfo, func(l *slog.Logger) *slog.Logger { return l.With("a", 1).WithGroup("g").With("b", 2) }},
	} {
		for _, json := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, JSON %v", name, json), func(t *testing.T) {
				var got, want bytes.Buffer
				lines := NewLog(LogConfig{Out: &got, Level: slog.LevelDebug, JSON: json})
				ours := lines.Logger()
				opts := &slog.HandlerOptions{Level: slog.LevelDebug}
				theirs := slog.New(slog.NewTextHandler(&want, opts))
				if json {
					theirs = slog.New(slog.NewJSONHandler(&want, opts))
				}
				if tc.with != nil {
					ours, theirs = tc.with(ours), tc.with(theirs)
				}
				LogCall(t.Context(), ours, tc.level, &tc.call)
				LogCall(t.Context(), theirs, tc.level, &tc.call)
				if err := lines.Close(); err != nil {
					t.Fatal(err)
				}
				if g, w := stamp.ReplaceAllString(got.String(), "T"), stamp.ReplaceAllString(want.String(), "T"); g != w {
					t.Errorf("got  %swant %s", g, w)
				}
			})
		}
	}
}

func TestATimeLooksAsSlogWritesIt(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", -3600)),
		time.Date(2026, 12, 31, 23, 59, 59, 120_000_000, time.FixedZone("", 19800)),
	} {
		if got, want := string(appendMillis([]byte("x"), at)), "x"+at.Format("2006-01-02T15:04:05.000Z07:00"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestADurationLooksAsTimePrintsIt(t *testing.T) {
	for _, d := range []time.Duration{
		0, time.Microsecond, 999 * time.Microsecond, time.Millisecond, 1001 * time.Microsecond, 1100 * time.Microsecond,
		123456 * time.Microsecond, 999999 * time.Microsecond, time.Second, 90 * time.Minute, -5 * time.Microsecond,
	} {
		if got := string(appendDuration(nil, d)); got != d.String() {
			t.Errorf("got %s, want %s", got, d)
		}
	}
}

// writes remembers each Write.
type writes struct {
	mu   sync.Mutex
	list []string
	err  error
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(p))
	return len(p), w.err
}

func (w *writes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}

func TestLinesWaitUntilATimerASizeAnErrorOrTheEnd(t *testing.T) {
	quiet := func(l *slog.Logger) { l.Info("quiet") }
	for name, tc := range map[string]struct {
		do    func(l *slog.Logger)
		wait  time.Duration
		lines int // written without Close
	}{
		"a line waits":             {quiet, flushAfter - time.Millisecond, 0},
		"a timer":                  {quiet, flushAfter, 1},
		"an error takes all along": {func(l *slog.Logger) { quiet(l); l.With("a", 1).Error("loud") }, 0, 2},
		"an error of a call": {func(l *slog.Logger) {
			quiet(l)
			LogCall(context.Background(), l, slog.LevelError, &Call{})
		}, 0, 2},
		"a call waits": {func(l *slog.Logger) { LogCall(context.Background(), l, slog.LevelInfo, &Call{}) }, 0, 0},
		"much":         {func(l *slog.Logger) { l.Info(strings.Repeat("x", flushSize)) }, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &writes{}
				l := NewLog(LogConfig{Out: w})
				tc.do(l.Logger())
				time.Sleep(tc.wait) // by the clock of the bubble
				synctest.Wait()
				if got := strings.Count(strings.Join(w.list, ""), "\n"); got != tc.lines || w.count() > 1 {
					t.Errorf("%d lines in %d writes, want %d in one", got, w.count(), tc.lines)
				}
				tc.do(l.Logger())
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				all := strings.Join(w.list, "")
				if n := strings.Count(all, "\n"); n%2 != 0 || n == 0 || !strings.HasSuffix(all, "\n") {
					t.Errorf("%d lines at the end, want each line twice", n)
				}
				time.Sleep(time.Second) // the last timer
			})
		})
	}
}

func TestLinesOfManyStayWhole(t *testing.T) {
	var out bytes.Buffer // Log writes one at a time: the race detector watches
	l := NewLog(LogConfig{Out: &out})
	log := l.Logger()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 500 {
				if i%2 == 0 {
					log.Info("plain", "filler", strings.Repeat("y", 100))
				} else {
					LogCall(context.Background(), log, slog.LevelInfo, &Call{At: time.Now(), Method: "/a/b", Code: "OK", RequestID: "r"})
				}
			}
		})
	}
	all.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 8*500 {
		t.Errorf("%d lines, want %d", len(lines), 8*500)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "time=") || strings.Count(line, "msg=") != 1 {
			t.Fatalf("a broken line: %s", line)
		}
	}
}

func TestALogTellsAtTheEndThatLinesWereLost(t *testing.T) {
	full := errors.New("disk full")
	l := NewLog(LogConfig{Out: &writes{err: full}})
	l.Logger().Info("x")
	if err := l.Close(); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestWhatACallerSendsCannotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	l := NewLog(LogConfig{Out: &out})
	LogCall(t.Context(), l.Logger(), slog.LevelInfo, &Call{Method: strings.Repeat("m", 10_000)})
	if err := l.Close(); err != nil || out.Len() > 1000 {
		t.Errorf("a line of %d bytes, %v", out.Len(), err)
	}
}
