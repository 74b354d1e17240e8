package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/usage"
)

// alike gives each of its subscribers the same events, and their memos where there are any.
type alike struct {
	memos []*fanout.Memo
	at    int
}

func (a *alike) Next(ctx context.Context) (int, string, error) {
	if a.at == len(a.memos) {
		<-ctx.Done()
		return 0, "", ctx.Err()
	}
	a.at++
	return a.at, "token-" + strconv.Itoa(a.at), nil
}
func (a *alike) Position() string   { return "here" }
func (a *alike) OnCut(func(error))  {}
func (a *alike) Memo() *fanout.Memo { return a.memos[a.at-1] }

// watchers serves events with these memos to streams, and has so many of them read all. It returns how often a message was made.
func watchers(t *testing.T, count int, memos []*fanout.Memo, options ...func(*kittest.Options)) (h *kittest.Harness, made int64) {
	t.Helper()
	var calls atomic.Int64
	h = kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		sub := &alike{memos: memos}
		return server.Follow(s.Context(), sub, func(e *int, token string) error {
			if e == nil {
				return s.SendMsg(echo.Message(token, ""))
			}
			return server.Tell(s, sub, token, func() proto.Message {
				calls.Add(1)
				return echo.Message(token, "")
			})
		})
	}}.Register, options...)
	conn := h.Anonymous()
	for range count {
		ctx, cancel := context.WithCancel(t.Context())
		s := openStream(t, ctx, conn, echo.Watch, echo.Message("", ""))
		for n := range len(memos) + 1 {
			want, got := "here", echo.Message("", "")
			if n > 0 {
				want = "token-" + strconv.Itoa(n)
			}
			if err := s.RecvMsg(got); err != nil || echo.TextOf(got) != want {
				t.Fatalf("message %d is %q, %v; want %q", n, echo.TextOf(got), err, want)
			}
		}
		cancel()
	}
	return h, calls.Load()
}

func TestTheMessageOfAnEventIsEncodedOnceForAllWhoWatchTheSame(t *testing.T) {
	recorder := usage.New(usage.Config{Service: "test", OneIn: 1, Clock: clock.System(), Random: rand.Uint64})
	h, made := watchers(t, 3, []*fanout.Memo{{}, {}}, func(o *kittest.Options) { o.Usage = recorder })
	if made != 2 {
		t.Errorf("messages were made %d times for 2 events", made)
	}
	// What is told of a stream is as if each message had been encoded for it alone.
	bytes := proto.Size(echo.Message("here", "")) + proto.Size(echo.Message("token-1", "")) + proto.Size(echo.Message("token-2", ""))
	if err := h.Stop(); err != nil { // what the streams do last has been done
		t.Fatal(err)
	}
	if n := strings.Count(h.Log.String(), `"sent":3,"sent_bytes":`+strconv.Itoa(bytes)); n != 3 {
		t.Errorf("the log has %d streams of 3 messages and %d bytes, want 3", n, bytes)
	}
	for _, e := range recorder.Snapshot().Entries {
		if e.Direction == usage.Response && e.Field == "text" {
			if e.Count != 9 {
				t.Errorf("the field was counted %d times, want 9", e.Count)
			}
			return
		}
	}
	t.Error("nobody has looked into what was sent")
}

// A token is of what is watched too: who watches something else gets a message and a token of their own of the same event.
func TestWhoWatchesSomethingElseGetsAMessageOfTheirOwn(t *testing.T) {
	memos := []*fanout.Memo{{}, {}}
	h := kittest.Start(t, echo.Handlers{Watch: func(req proto.Message, s grpc.ServerStream) error {
		sub, watched := &alike{memos: memos}, echo.TextOf(req)
		return server.Follow(s.Context(), sub, func(e *int, token string) error {
			if e == nil {
				return nil
			}
			return server.Tell(s, sub, token+" of "+watched, func() proto.Message { return echo.Message(token+" of "+watched, "") })
		})
	}}.Register)
	conn := h.Anonymous()
	for _, watched := range []string{"one", "another", "one"} {
		ctx, cancel := context.WithCancel(t.Context())
		s := openStream(t, ctx, conn, echo.Watch, echo.Message(watched, ""))
		for n := range memos {
			want, got := fmt.Sprintf("token-%d of %s", n+1, watched), echo.Message("", "")
			if err := s.RecvMsg(got); err != nil || echo.TextOf(got) != want {
				t.Errorf("got %q, %v; want %q", echo.TextOf(got), err, want)
			}
		}
		cancel()
	}
}

func TestWhatIsSharedWithNobodyIsMadeForEach(t *testing.T) {
	if _, made := watchers(t, 3, []*fanout.Memo{nil, nil}); made != 6 {
		t.Errorf("messages were made %d times for 3 watchers of 2 events", made)
	}
}

// A call that has one answer has it from grpc-go.
func TestWhatIsToldMayBeTheOneAnswerOfACall(t *testing.T) {
	shared := &alike{memos: []*fanout.Memo{{}}, at: 1}
	h := kittest.Start(t, echo.Handlers{Collect: func(s grpc.ServerStream) error {
		return server.Tell(s, shared, "token", func() proto.Message { return echo.Message("answer", "") })
	}}.Register)
	for range 2 {
		s, err := h.Anonymous().NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, echo.Feed)
		if err != nil {
			t.Fatal(err)
		}
		got := echo.Message("", "")
		if err := errors.Join(s.CloseSend(), s.RecvMsg(got)); err != nil || echo.TextOf(got) != "answer" {
			t.Errorf("got %q, %v", echo.TextOf(got), err)
		}
	}
}

func TestAnEventThatIsTooLargeToSendIsRefusedToEach(t *testing.T) {
	memos := []*fanout.Memo{{}}
	h := kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		sub := &alike{memos: memos}
		return server.Follow(s.Context(), sub, func(e *int, token string) error {
			if e == nil {
				return nil
			}
			return server.Tell(s, sub, token, func() proto.Message {
				m := echo.Message("", "")
				m.Set(m.Descriptor().Fields().ByName("owner"), protoreflect.ValueOfString(strings.Repeat("x", 5<<20)))
				return m
			})
		})
	}}.Register)
	conn := h.Anonymous()
	for range 2 {
		s := openStream(t, t.Context(), conn, echo.Watch, echo.Message("", ""))
		f := kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.ResourceExhausted, "MESSAGE_TOO_LARGE")
		if want := "the answer is larger than the server sends"; f.Text() != want {
			t.Errorf("it says %q, want %q", f.Text(), want)
		}
	}
}
