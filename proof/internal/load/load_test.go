package load_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/concordat-dev/concordat/proof/internal/load"
)

// listen starts stock grpc-go, which answers every method with handler, and returns where.
func listen(t *testing.T, handler func(grpc.ServerStream, string) error, options ...grpc.ServerOption) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var in wrapperspb.StringValue
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		return handler(stream, in.GetValue())
	}))...)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// serve starts what listen does, and returns how to connect to it.
func serve(t *testing.T, handler func(grpc.ServerStream, string) error, options ...grpc.ServerOption) (dial func(int) []*load.Conn) {
	t.Helper()
	address := listen(t, handler, options...)
	return func(count int) (conns []*load.Conn) {
		t.Helper()
		for range count {
			raw, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			c, err := load.NewConn(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			conns = append(conns, c)
		}
		return conns
	}
}

func request(t *testing.T, text string, timeout time.Duration) *load.Request {
	t.Helper()
	m, err := proto.Marshal(wrapperspb.String(text))
	if err != nil {
		t.Fatal(err)
	}
	return &load.Request{Method: "/a.Service/Method", Message: m, Token: "a-token", Timeout: timeout}
}

func echo(stream grpc.ServerStream, text string) error {
	return stream.SendMsg(wrapperspb.String(text))
}

func TestOneCallBringsItsAnswer(t *testing.T) {
	const times = 10_000 // several frames
	dial := serve(t, func(stream grpc.ServerStream, text string) error { return echo(stream, strings.Repeat(text, times)) })
	for _, text := range []string{"", "hello"} {
		answer, err := load.Once(dial(1)[0], request(t, text, time.Second))
		var got wrapperspb.StringValue
		if err == nil {
			err = proto.Unmarshal(answer, &got)
		}
		if err != nil || got.GetValue() != strings.Repeat(text, times) {
			t.Errorf("%q comes back as %d bytes, %v", text, len(got.GetValue()), err)
		}
	}
	if _, err := load.Once(dial(1)[0], request(t, strings.Repeat("x", 40_000), time.Second)); err == nil || !strings.Contains(err.Error(), "frame") {
		t.Errorf("a request that does not fit into a frame: %v", err)
	}
}

func TestAClosedLoopCountsWhatTheServerServed(t *testing.T) {
	var served, most, now atomic.Int64
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		served.Add(1)
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		return echo(stream, text)
	})
	const callers = 10
	res, err := load.Closed(dial(3), request(t, "hello", time.Second), callers, 100*time.Millisecond)
	if err != nil || res.Err() != nil {
		t.Fatal(err, res.Err())
	}
	// What was under way at the end is answered and not counted: one call for each caller at most.
	if n := int64(res.OK); n == 0 || served.Load() < n || served.Load() > n+callers {
		t.Errorf("counted %d, served %d", n, served.Load())
	}
	if res.Latency.Count() != res.OK || res.Latency.Quantile(1) <= 0 || res.Latency.Quantile(1) > 5*time.Second {
		t.Errorf("%d latencies up to %v of %d calls", res.Latency.Count(), res.Latency.Quantile(1), res.OK)
	}
	if most.Load() > callers {
		t.Errorf("%d calls at once from %d callers", most.Load(), callers)
	}
}

func TestAFailureIsCountedByItsStatus(t *testing.T) {
	dial := serve(t, func(grpc.ServerStream, string) error { return status.Error(codes.ResourceExhausted, "too many") })
	res, err := load.Closed(dial(1), request(t, "", time.Second), 2, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	want := load.Status{Code: int(codes.ResourceExhausted), Message: "too many"}
	if res.OK != 0 || res.Failed[want] == 0 || len(res.Failed) != 1 || res.Refused.Count() != res.Failed[want] {
		t.Errorf("%d well, failed %v, %d refused", res.OK, res.Failed, res.Refused.Count())
	}
	if res.Err() == nil || !strings.Contains(res.Err().Error(), "too many") {
		t.Errorf("the error is %v", res.Err())
	}
	if _, err := load.Once(dial(1)[0], request(t, "", time.Second)); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one call: %v", err)
	}
}

func TestAnOpenLoopAsksAtItsRateWhateverTheAnswers(t *testing.T) {
	const rate, during = 2000, 200 * time.Millisecond
	asked := func(res *load.Result) (n uint64) {
		for _, failed := range res.Failed {
			n += failed
		}
		return n + res.OK
	}
	t.Run("all answered", func(t *testing.T) {
		res, err := load.Open(serve(t, echo)(2), request(t, "", 10*time.Second), rate, during)
		if err != nil || res.Err() != nil || asked(res) != 400 || res.Rate() != rate {
			t.Errorf("%d asked, rate %v, %v, %v", asked(res), res.Rate(), err, res.Err())
		}
	})
	t.Run("answered too late", func(t *testing.T) {
		begun := time.Now()
		dial := serve(t, func(stream grpc.ServerStream, text string) error {
			<-stream.Context().Done()
			return echo(stream, text) // the deadline is over
		})
		res, err := load.Open(dial(2), request(t, "", 50*time.Millisecond), rate, during)
		if err != nil || res.OK != 0 || asked(res) != 400 {
			t.Errorf("%d well, %d asked, %v, %v", res.OK, asked(res), res.Failed, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
	t.Run("more than the server takes at once", func(t *testing.T) {
		release := make(chan struct{})
		time.AfterFunc(during, func() { close(release) })
		dial := serve(t, func(stream grpc.ServerStream, text string) error {
			<-release
			return echo(stream, text)
		}, grpc.MaxConcurrentStreams(10))
		conns := dial(2)
		for _, c := range conns { // the limit is known once the server has spoken
			for c.MaxStreams() != 10 {
				if _, err := load.Once(c, &load.Request{Method: "/a.Service/Method", Timeout: time.Millisecond}); err == nil {
					t.Fatal("a call that waits for ever is answered")
				}
			}
		}
		res, err := load.Open(conns, request(t, "", 10*time.Second), rate, during/2)
		if err != nil || res.OK != 20 || res.Failed[load.Unsent] != 180 {
			t.Errorf("%d well, failed %v, %v", res.OK, res.Failed, err)
		}
	})
}

func TestMessagesOfOneStreamAreCounted(t *testing.T) {
	var sent atomic.Int64
	dial := serve(t, func(stream grpc.ServerStream, _ string) error {
		for {
			if err := echo(stream, strings.Repeat("x", 95)); err != nil {
				return err
			}
			sent.Add(1)
		}
	})
	begun := time.Now()
	rate, err := load.Messages(dial(1)[0], request(t, "", time.Minute), 20*time.Millisecond, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if most := float64(sent.Load()) / 0.1; rate <= 0 || rate > most {
		t.Errorf("%.0f messages a second after %d messages in %v", rate, sent.Load(), time.Since(begun))
	}
	over := serve(t, echo)
	if _, err := load.Messages(over(1)[0], request(t, "", time.Minute), time.Minute, time.Minute); err == nil {
		t.Error("a stream that ends is no error")
	}
}

func TestAWholeStreamIsCountedToItsEnd(t *testing.T) {
	const count = 10_000
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		for range count {
			if err := echo(stream, text); err != nil {
				return err
			}
		}
		if text == "broken" {
			return status.Error(codes.DataLoss, text)
		}
		return nil
	})
	if n, err := load.Whole(dial(1)[0], request(t, "hello", time.Second)); err != nil || n != count {
		t.Errorf("%d messages, %v", n, err)
	}
	if _, err := load.Whole(dial(1)[0], request(t, "broken", time.Second)); err == nil || !strings.Contains(err.Error(), "code 15") {
		t.Errorf("a stream that ends with an error: %v", err)
	}
}

func TestEachCallOfALoadHasTheMessageThatIsChosenForIt(t *testing.T) {
	var seen [3]atomic.Int64
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		seen[len(text)].Add(1)
		return echo(stream, text)
	})
	var turn atomic.Int64
	messages := [][]byte{request(t, "", 0).Message, request(t, "a", 0).Message, request(t, "bc", 0).Message}
	r := &load.Request{Method: "/a.Service/Method", Timeout: time.Second, Choose: func() []byte { return messages[turn.Add(1)%3] }}
	res, err := load.Closed(dial(2), r, 4, 100*time.Millisecond)
	if err != nil || res.Err() != nil {
		t.Fatal(err, res.Err())
	}
	for length := range seen {
		if n := seen[length].Load(); n < int64(res.OK)/3 || n > int64(res.OK)/3+5 {
			t.Errorf("%d of %d calls had the message of %d characters", n, res.OK, length)
		}
	}
}

func TestEverySubscriberIsWaitedFor(t *testing.T) {
	const count = 50
	publish := make(chan struct{})
	var open atomic.Int64
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		open.Add(1)
		if err := echo(stream, text); err != nil {
			return err
		}
		<-publish
		if err := echo(stream, text); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	})
	subscribers := load.Subscribe(t.Context(), dial(3), request(t, "hello", time.Minute), count, 2)
	if err := subscribers.Await(0); err != nil || open.Load() != count {
		t.Fatalf("%d are open, %v", open.Load(), err)
	}
	published := time.Now()
	close(publish)
	if err := subscribers.Await(1); err != nil {
		t.Fatal(err)
	}
	for i, at := range subscribers.Arrived[1] {
		if at.Before(published) || time.Since(at) < 0 {
			t.Errorf("subscriber %d has the event at %v, it was published at %v", i, at, published)
		}
	}
	ended := serve(t, echo)
	subscribers = load.Subscribe(t.Context(), ended(1), request(t, "", time.Minute), 2, 2)
	if err := subscribers.Await(1); err == nil || !strings.Contains(err.Error(), "subscription ended") {
		t.Errorf("streams that end: %v", err)
	}
}

func TestAServerThatGoesAwayIsAnError(t *testing.T) {
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := dial(1)[0]
	context.AfterFunc(ctx, func() { _ = c.Close() })
	if _, err := load.Closed([]*load.Conn{c}, request(t, "", time.Minute), 1, time.Minute); err == nil {
		t.Error("a connection that breaks is no error")
	}
}

func TestAnAnswerThatIsNotWhatItMustBeIsAFailure(t *testing.T) {
	var served atomic.Int64
	dial := serve(t, func(stream grpc.ServerStream, text string) error {
		if served.Add(1)%2 == 0 {
			text = strings.Repeat("wrong", 10_000) // several frames
		}
		return echo(stream, text)
	})
	r := request(t, "right", time.Second)
	r.Check = func(answer []byte) error {
		var got wrapperspb.StringValue
		if err := proto.Unmarshal(answer, &got); err != nil {
			return err
		}
		if got.GetValue() != "right" {
			return errors.New(got.GetValue()[:5])
		}
		return nil
	}
	res, err := load.Closed(dial(2), r, 4, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	wrong := res.Failed[load.Status{Code: load.Wrong, Message: "wrong"}]
	if all := served.Load(); len(res.Failed) != 1 || int64(wrong) != all/2 || int64(res.OK) > all-all/2 || int64(res.OK) < all-all/2-4 {
		t.Errorf("%d served, %d well, failed %v", all, res.OK, res.Failed)
	}
}

// numbered returns a dialog whose messages are the keys "0", "1" and so on, each twice.
func numbered(t *testing.T) (d *load.Dialog, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	return &load.Dialog{
		Method: "/a.Service/Method", Timeout: time.Minute,
		Next: func() ([]byte, string) {
			key := strconv.FormatInt((sent.Add(1)-1)/2, 10)
			m, err := proto.Marshal(wrapperspb.String(key + strings.Repeat(" ", 500)))
			if err != nil {
				t.Error(err)
			}
			return m, key
		},
		Answer: func(message []byte) (string, error) {
			var got wrapperspb.StringValue
			err := proto.Unmarshal(message, &got)
			return strings.TrimSpace(got.GetValue()), err
		},
	}, sent
}

// answerAnyhow answers each message of a stream both ways, and the later of two first where two are there, until the client is done.
func answerAnyhow(stream grpc.ServerStream, text string) error {
	in := make(chan string, 100)
	in <- text
	go func() {
		defer close(in)
		for {
			var next wrapperspb.StringValue
			if stream.RecvMsg(&next) != nil {
				return
			}
			in <- next.GetValue()
		}
	}()
	for text := range in {
		select {
		case later, ok := <-in:
			if ok {
				if err := echo(stream, later); err != nil {
					return err
				}
			}
		default:
		}
		if err := echo(stream, text); err != nil {
			return err
		}
	}
	return nil
}

func TestAStreamBothWaysIsKeptBusyAndEveryAnswerIsMatched(t *testing.T) {
	d, sent := numbered(t)
	const streams, window = 3, 10
	res, err := load.Pipelined(serve(t, answerAnyhow)(streams), d, window, 300*time.Millisecond)
	if err != nil || res.Err() != nil {
		t.Fatal(err, res.Err())
	}
	if late := sent.Load() - int64(res.OK); late < 0 || late > streams*window || res.Latency.Count() != res.OK {
		t.Errorf("%d sent, %d well and %d timed", sent.Load(), res.OK, res.Latency.Count())
	}
	if res.OK < 2*streams*64<<10/500 {
		t.Errorf("%d messages fit into the windows that the server opens in the beginning", res.OK)
	}
}

func TestAStreamBothWaysFailsForWhatWasNotAskedForAndForItsEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		handler func(grpc.ServerStream, string) error
		want    string
	}{
		"another answer":         {func(s grpc.ServerStream, _ string) error { return errors.Join(echo(s, "none"), answerAnyhow(s, "")) }, `answers for "none"`},
		"an end before the last": {func(s grpc.ServerStream, text string) error { return nil }, "before all was answered"},
		"an error":               {func(s grpc.ServerStream, text string) error { return status.Error(codes.DataLoss, "gone") }, "code 15"},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := numbered(t)
			if _, err := load.Pipelined(serve(t, tc.handler)(1), d, 10, time.Minute); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
