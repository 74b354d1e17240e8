package server_test

import (
	"context"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/token"
)

// flood is a log in which there is always one more event, each a number.
type flood struct {
	mu   sync.Mutex
	last int
	cut  func(error)
}

func (f *flood) Next(context.Context) (int, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	return f.last, strconv.Itoa(f.last), nil
}

func (f *flood) Position() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strconv.Itoa(f.last)
}

func (f *flood) OnCut(fn func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = fn
}

// overflow cuts the subscription.
func (f *flood) overflow(why error) {
	f.mu.Lock()
	fn := f.cut
	f.mu.Unlock()
	fn(why)
}

func TestAStreamAnswersAClientThatCompressesInKind(t *testing.T) {
	text := strings.Repeat("long ", 1000)
	m := &inMemory{memory: bufconn.Listen(1 << 20)}
	shared := &alike{memos: []*fanout.Memo{{}}, at: 1}
	m.Harness = kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		if err := s.SendMsg(echo.Message(text, "")); err != nil {
			return err
		}
		if err := server.Tell(s, shared, "token", func() proto.Message { return echo.Message(text, "") }); err != nil {
			return err
		}
		return s.SendMsg(echo.Message("", ""))
	}}.Register, func(o *kittest.Options) { o.Listener = m.memory })
	// The second client gets as it is what was compressed for the first.
	for _, c := range []struct {
		options []grpc.CallOption
		most    int // bytes of a message on the wire
	}{{[]grpc.CallOption{grpc.UseCompressor(gzip.Name)}, len(text) / 10}, {nil, len(text) + 10}} {
		sizes := &wireSizes{}
		conn := m.client(t, grpc.WithStatsHandler(sizes), grpc.WithDefaultCallOptions(c.options...))
		s := openStream(t, t.Context(), conn, echo.Watch, echo.Message("", ""))
		for _, want := range []string{text, text, ""} {
			got := echo.Message("", "")
			if err := s.RecvMsg(got); err != nil || echo.TextOf(got) != want {
				t.Errorf("got %d bytes, %v; want %d", len(echo.TextOf(got)), err, len(want))
			}
		}
		if err := s.RecvMsg(echo.Message("", "")); err != io.EOF {
			t.Errorf("it ended with %v", err)
		}
		if got := sizes.most.Load(); got == 0 || got > int64(c.most) {
			t.Errorf("a message had up to %d bytes on the wire, want at most %d", got, c.most)
		}
	}
}

// wireSizes notes how large what comes is on the wire.
type wireSizes struct {
	stats.Handler
	most atomic.Int64
}

func (*wireSizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*wireSizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*wireSizes) HandleConn(context.Context, stats.ConnStats)                       {}

// HandleRPC implements stats.Handler.
func (w *wireSizes) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		w.most.Store(max(w.most.Load(), int64(in.CompressedLength)))
	}
}

// TestAStreamThatNobodyReadsEndsWhenItIsCut has a client that takes nothing, so that the handler is held up in a send: nothing but
// the cut ends that, because there is always one more event.
func TestAStreamThatNobodyReadsEndsWhenItIsCut(t *testing.T) {
	tooSlow := fault.New(fault.ResourceExhausted, "CONSUMER_TOO_SLOW", "the consumer is too slow")
	for name, row := range map[string]struct {
		cut    func(*kittest.Harness, *flood, *token.Verifier)
		code   codes.Code
		reason string
	}{
		"because it does not keep up": {
			func(_ *kittest.Harness, f *flood, _ *token.Verifier) { f.overflow(tooSlow) }, codes.ResourceExhausted, "CONSUMER_TOO_SLOW",
		},
		"because its caller may no longer": {
			func(_ *kittest.Harness, _ *flood, v *token.Verifier) {
				v.Revoke(token.Revocation{UserID: "u1", At: time.Now()})
			}, codes.Unauthenticated, "TOKEN_REVOKED",
		},
		"because the server stops": {
			func(h *kittest.Harness, _ *flood, _ *token.Verifier) { h.Begin() }, codes.Unavailable, "DRAINING",
		},
	} {
		t.Run(name, func(t *testing.T) {
			events, returned := &flood{}, make(chan struct{})
			var h *kittest.Harness
			verifier := token.NewVerifier(token.VerifierConfig{
				Issuer: kittest.Issuer, Audience: kittest.Audience, Clock: clock.System(),
				Keys: func(ctx context.Context) ([]token.Key, error) { return h.Keys(ctx) },
			})
			h = kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
				defer close(returned)
				return server.Follow(s.Context(), events, func(_ *int, token string) error { return s.SendMsg(echo.Message(token, "")) })
			}}.Register, func(o *kittest.Options) { o.Tokens = verifier })
			user := identity.User{ID: "u1", SessionID: "one", Scopes: []string{"echo"}, ExpiresAt: time.Now().Add(time.Minute)}
			s := openStream(t, t.Context(), h.WithToken(h.TokenFor(user)), echo.Watch, echo.Message("", "u1"))
			wantText := func(text string) bool {
				t.Helper()
				m := echo.Message("", "")
				err := s.RecvMsg(m)
				if err == nil && echo.TextOf(m) != text {
					t.Fatalf("got %q, want %q", echo.TextOf(m), text)
				}
				if err == io.EOF {
					t.Fatal("the stream ended well")
				}
				if err != nil {
					f := kittest.WantFault(t, err, row.code, row.reason)
					last, _ := strconv.Atoi(text)
					if point := f.Metadata()["resume_token"]; point != strconv.Itoa(last-1) {
						t.Errorf("it goes on from %s, and %d was the last that came", point, last-1)
					}
				}
				return err == nil
			}
			if !wantText("0") {
				t.FailNow()
			}
			row.cut(h, events, verifier)
			select {
			case <-returned:
			case <-time.After(time.Minute):
				t.Fatal("the handler has not returned after the cut")
			}
			next := 1
			for wantText(strconv.Itoa(next)) {
				next++
			}
			if err := h.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if log := h.Log.String(); strings.Contains(log, "drain timed out") {
				t.Error("the server has waited for it, and cut it")
			}
		})
	}
}

// A send that is never held up, of events of which there is always one more, ends with the drain as well.
func TestAStreamThatAlwaysHasAnEventEndsWithTheDrain(t *testing.T) {
	events := &flood{}
	h := kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		return server.Follow(s.Context(), events, func(e *int, token string) error {
			if e != nil {
				return nil
			}
			return s.SendMsg(echo.Message(token, ""))
		})
	}}.Register)
	s := openStream(t, t.Context(), h.Anonymous(), echo.Watch, echo.Message("", ""))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	h.Begin()
	f := kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.Unavailable, "DRAINING")
	if f.Metadata()["resume_token"] == "" {
		t.Error("it does not say where to go on")
	}
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestAStreamGoesOnAfterTheEventThatItsEndWasToldBy has an event sent and then end the stream, which is cut for the same reason
// meanwhile: the client has the event, and must not get it again.
func TestAStreamGoesOnAfterTheEventThatItsEndWasToldBy(t *testing.T) {
	var h *kittest.Harness
	verifier := token.NewVerifier(token.VerifierConfig{
		Issuer: kittest.Issuer, Audience: kittest.Audience, Clock: clock.System(),
		Keys: func(ctx context.Context) ([]token.Key, error) { return h.Keys(ctx) },
	})
	h = kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		return server.Follow(s.Context(), &flood{}, func(event *int, point string) error {
			if err := s.SendMsg(echo.Message(point, "")); err != nil || event == nil || *event < 3 {
				return err
			}
			verifier.Revoke(token.Revocation{UserID: "u1", At: time.Now()})
			<-s.Context().Done()
			return token.ErrRevoked
		})
	}}.Register, func(o *kittest.Options) { o.Tokens = verifier })
	user := identity.User{ID: "u1", SessionID: "one", Scopes: []string{"echo"}, ExpiresAt: time.Now().Add(time.Minute)}
	s := openStream(t, t.Context(), h.WithToken(h.TokenFor(user)), echo.Watch, echo.Message("", "u1"))
	for _, want := range []string{"0", "1", "2", "3"} {
		got := echo.Message("", "")
		if err := s.RecvMsg(got); err != nil || echo.TextOf(got) != want {
			t.Fatalf("got %q, %v; want %q", echo.TextOf(got), err, want)
		}
	}
	f := kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.Unauthenticated, "TOKEN_REVOKED")
	if point := f.Metadata()["resume_token"]; point != "3" {
		t.Errorf("it goes on from %q, and 3 was the last that came", point)
	}
}
