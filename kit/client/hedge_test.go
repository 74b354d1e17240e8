package client

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/policy"
)

// replica is how one sending of a call is answered.
type replica struct {
	after    time.Duration // until the answer; below zero is never
	code     codes.Code
	pushback string
}

// sending is what became of one sending.
type sending struct {
	at        time.Duration // since the call was made
	previous  string        // grpc-previous-rpc-attempts
	cancelled bool
}

// hedged makes one call to Hedged (three sendings, 20 ms apart, 2 s in all), whose sendings are answered in turn.
func hedged(t *testing.T, c *caller, replicas []replica, opts ...grpc.CallOption) (text string, sendings []sending, took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	seen := make([]sending, len(replicas)) // each is written by its own sending
	resp, n := echo.Message("stale", "stale"), 0
	turn := make(chan int, len(replicas))
	for i := range replicas {
		turn <- i
	}
	err = c.hedge(t.Context(), c.table[echo.Hedged], resp, func(ctx context.Context, into protoMessage, opts []grpc.CallOption) error {
		i := <-turn
		r, s := replicas[i], &seen[i]
		s.at = time.Since(start)
		if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get(previousAttempts)) > 0 {
			s.previous = md.Get(previousAttempts)[0]
		}
		var answered <-chan time.Time
		if r.after >= 0 {
			answered = time.After(r.after)
		}
		select {
		case <-ctx.Done():
			s.cancelled = true
			return status.FromContextError(ctx.Err()).Err()
		case <-answered:
		}
		name := fmt.Sprintf("replica %d", i)
		for _, o := range opts {
			switch o := o.(type) {
			case grpc.HeaderCallOption:
				*o.HeaderAddr = metadata.Pairs("from", name)
			case grpc.TrailerCallOption:
				*o.TrailerAddr = metadata.Pairs("from", name)
				if r.pushback != "" {
					o.TrailerAddr.Append(pushbackTrailer, r.pushback)
				}
			case grpc.PeerCallOption:
				o.PeerAddr.LocalAddr = address(name)
			case grpc.OnFinishCallOption:
				o.OnFinish(nil)
			}
		}
		if r.code != codes.OK {
			return status.Error(r.code, name)
		}
		m := into.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("text"), echo.Message(name, "").Get(m.Descriptor().Fields().ByName("text")))
		return nil
	}, opts)
	took = time.Since(start)
	n = len(replicas) - len(turn)
	if owner := resp.Get(resp.Descriptor().Fields().ByName("owner")).String(); err == nil && owner != "" {
		t.Errorf("the response still has %q of before", owner)
	}
	return echo.TextOf(resp), seen[:n], took, err
}

type address string

func (address) Network() string  { return "test" }
func (a address) String() string { return string(a) }

func echoCaller(t *testing.T) *caller {
	t.Helper()
	table, err := policy.Compile(echo.Contract())
	if err != nil {
		t.Fatal(err)
	}
	return newCaller(table, "echo", "test/devel", nil)
}

func TestACallIsHedgedAsThePolicySays(t *testing.T) {
	const delay, never = 20 * time.Millisecond, -1
	ms := func(n ...time.Duration) []time.Duration {
		for i := range n {
			n[i] *= time.Millisecond
		}
		return n
	}
	for name, tc := range map[string]struct {
		replicas []replica
		sent     []time.Duration // when
		code     codes.Code
		from     int           // whose answer it is
		took     time.Duration // in all
	}{
		"an answer in time is the only one":                   {[]replica{{after: 19 * time.Millisecond}, {}}, ms(0), codes.OK, 0, 19 * time.Millisecond},
		"a late answer is overtaken":                          {[]replica{{after: never}, {after: 5 * time.Millisecond}, {}}, ms(0, 20), codes.OK, 1, 25 * time.Millisecond},
		"the first may still be the first":                    {[]replica{{after: 45 * time.Millisecond}, {after: never}, {after: never}}, ms(0, 20, 40), codes.OK, 0, 45 * time.Millisecond},
		"no more than the attempts are sent":                  {[]replica{{after: never}, {after: never}, {after: time.Second}, {}}, ms(0, 20, 40), codes.OK, 2, 1040 * time.Millisecond},
		"one that is unavailable is not waited for":           {[]replica{{after: 1 * time.Millisecond, code: codes.Unavailable}, {after: 1 * time.Millisecond}, {}}, ms(0, 1), codes.OK, 1, 2 * time.Millisecond},
		"after it the delay counts anew":                      {[]replica{{after: 1 * time.Millisecond, code: codes.Unavailable}, {after: never}, {}}, ms(0, 1, 21), codes.OK, 2, 21 * time.Millisecond},
		"when all are unavailable the last one's word counts": {[]replica{{code: codes.Unavailable}, {code: codes.Unavailable}, {code: codes.Unavailable}, {}}, ms(0, 0, 0), codes.Unavailable, 2, 0},
		"what is no moment's trouble is the answer":           {[]replica{{after: never}, {after: 1 * time.Millisecond, code: codes.NotFound}, {}}, ms(0, 20), codes.NotFound, 1, 21 * time.Millisecond},
		"the server says when":                                {[]replica{{code: codes.Unavailable, pushback: "500"}, {}, {}}, ms(0, 500), codes.OK, 1, 500 * time.Millisecond},
		"the server says never":                               {[]replica{{code: codes.Unavailable, pushback: "-1"}, {}}, ms(0), codes.Unavailable, 0, 0},
		"the server says nonsense, which is never":            {[]replica{{code: codes.Unavailable, pushback: "soon"}, {}}, ms(0), codes.Unavailable, 0, 0},
		"never does not end what is under way":                {[]replica{{after: 100 * time.Millisecond}, {code: codes.Unavailable, pushback: "-1"}, {}}, ms(0, 20), codes.OK, 0, 100 * time.Millisecond},
		"the server says when it is too late":                 {[]replica{{code: codes.Unavailable, pushback: "2000"}, {}}, ms(0), codes.Unavailable, 0, 0},
		"all sendings share one deadline":                     {[]replica{{after: never}, {after: never}, {after: never}}, ms(0, 20, 40), codes.DeadlineExceeded, -1, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text, sendings, took, err := hedged(t, echoCaller(t), tc.replicas)
				var sent []time.Duration
				for i, s := range sendings {
					sent = append(sent, s.at)
					if want := map[int]string{1: "1", 2: "2"}[i]; s.previous != want {
						t.Errorf("sending %d says that %q went before", i, s.previous)
					}
				}
				if !slices.Equal(sent, tc.sent) || status.Code(err) != tc.code || took != tc.took {
					t.Errorf("sent at %v, %v after %v; want at %v, %v after %v", sent, err, took, tc.sent, tc.code, tc.took)
				}
				want := fmt.Sprintf("replica %d", tc.from)
				if err == nil && text != want || err != nil && tc.from >= 0 && status.Convert(err).Message() != want {
					t.Errorf("answer %q, %v; want that of %s", text, err, want)
				}
				for i, s := range sendings {
					if r := tc.replicas[i]; r.after == never && !s.cancelled {
						t.Errorf("sending %d is left under way", i)
					}
				}
			})
		})
	}
}

func TestACallIsNotHedgedWhileHalfOfTheTokensAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := echoCaller(t)
		for range maxTokens / 2 {
			_ = c.throttle.counted(status.Error(codes.Unavailable, ""))
		}
		slow := []replica{{after: 100 * time.Millisecond}, {}}
		if _, sendings, _, err := hedged(t, c, slow); err != nil || len(sendings) != 1 {
			t.Errorf("braked: %d sendings, %v; want 1", len(sendings), err)
		}
		for range 10 { // answers put the tokens back
			_ = c.throttle.counted(nil)
		}
		if _, sendings, _, err := hedged(t, c, slow); err != nil || len(sendings) != 2 {
			t.Errorf("no longer braked: %d sendings, %v; want 2", len(sendings), err)
		}
	})
}

func TestACallThatWaitsToBeRepeatedEndsWhenTheBrakeComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := echoCaller(t)
		go func() {
			time.Sleep(100 * time.Millisecond) // of the bubble: while the call below waits
			for range maxTokens {
				c.throttle.failed()
			}
		}()
		_, sendings, took, err := hedged(t, c, []replica{{code: codes.Unavailable, pushback: "500"}, {}})
		if status.Code(err) != codes.Unavailable || len(sendings) != 1 || took != 500*time.Millisecond {
			t.Errorf("%d sendings, %v after %v", len(sendings), err, took)
		}
	})
}

func TestACallThatWaitsToBeRepeatedEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := echoCaller(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		start := time.Now()
		err := c.hedge(ctx, c.table[echo.Hedged], echo.Message("", ""), func(_ context.Context, _ protoMessage, opts []grpc.CallOption) error {
			for _, o := range opts {
				if o, ok := o.(grpc.TrailerCallOption); ok {
					*o.TrailerAddr = metadata.Pairs(pushbackTrailer, "500")
				}
			}
			return status.Error(codes.Unavailable, "")
		}, nil)
		if took := time.Since(start); status.Code(err) != codes.Canceled || took != 100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestWhatIsAskedOfAnAnswerIsOfTheOneThatCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var header, trailer metadata.MD
		var from peer.Peer
		finished := 0
		text, _, _, err := hedged(t, echoCaller(t), []replica{{after: -1}, {after: time.Millisecond}, {}},
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&from), grpc.OnFinish(func(error) { finished++ }))
		if err != nil || text != "replica 1" {
			t.Fatalf("%q, %v", text, err)
		}
		if header.Get("from")[0] != text || trailer.Get("from")[0] != text || from.LocalAddr != address(text) || finished != 1 {
			t.Errorf("header %v, trailer %v, peer %v, finished %d times", header, trailer, from, finished)
		}
	})
}
