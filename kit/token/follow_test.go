package token_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/token"
)

// opening is one attempt of a follower to open its feed, which the test answers.
type opening struct {
	point  string
	since  time.Time
	refuse chan error
	news   chan token.News
	fail   chan error
}

// feed hands each attempt to the test.
type feed chan *opening

func (f feed) open(ctx context.Context, point string, since time.Time) (func() (token.News, error), error) {
	o := &opening{point, since, make(chan error), make(chan token.News), make(chan error)}
	select {
	case f <- o:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-o.refuse:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return func() (token.News, error) {
		select {
		case n := <-o.news:
			return n, nil
		case err := <-o.fail:
			return token.News{}, err
		case <-ctx.Done():
			return token.News{}, ctx.Err()
		}
	}, nil
}

// following is a running follower.
type following struct {
	issuerOf
	*token.Follower
	feed feed
}

// follow runs test beside a follower, in a bubble: whatever the test does has been dealt with once settle returns.
func follow(t *testing.T, test func(*testing.T, *following)) {
	synctest.Test(t, func(t *testing.T) {
		f := &following{issuerOf: newIssuer(t), feed: make(feed)}
		f.Follower = token.NewFollower(token.FollowerConfig{
			Open: f.feed.open, Verifier: f.Verifier, Clock: f.clk, Random: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		test(t, f)
	})
}

func settle() { synctest.Wait() }

// pass lets time pass.
func (f *following) pass(d time.Duration) {
	settle()
	f.clk.Advance(d)
	settle()
}

// none fails the test if the follower opens the feed now.
func (f *following) none() {
	f.t.Helper()
	settle()
	select {
	case <-f.feed:
		f.t.Fatal("the feed is opened too early")
	default:
	}
}

// next returns the attempt to open the feed that is under way, and answers it.
func (f *following) next(answer error) *opening {
	f.t.Helper()
	settle()
	select {
	case o := <-f.feed:
		o.refuse <- answer
		settle()
		return o
	default:
		f.t.Fatal("the feed is not opened")
		return nil
	}
}

// tell has the feed say something.
func (f *following) tell(o *opening, n token.News) {
	f.t.Helper()
	settle()
	select {
	case o.news <- n:
		settle()
	default:
		f.t.Fatal("nobody listens")
	}
}

func TestAFollowerTellsWhatItHearsAndResumesWhereItWas(t *testing.T) {
	follow(t, func(t *testing.T, f *following) {
		text := f.issue("ann", "a")
		at := f.clk.Now()
		o := f.next(nil)
		if o.point != "" || o.since.After(f.clk.Now().Add(-token.MaxLife)) {
			t.Errorf("it begins at %q, %s: a token from before may still be alive", o.point, o.since)
		}
		if !f.Heard().IsZero() {
			t.Errorf("it heard something at %s", f.Heard())
		}
		f.want("before", text, nil)
		f.tell(o, token.News{Revocation: &token.Revocation{UserID: "ann", At: at}, Point: "p1"})
		f.want("after", text, token.ErrRevoked)
		o.fail <- errors.New("connection reset")
		f.none()
		f.pass(75 * time.Millisecond)
		if o = f.next(nil); o.point != "p1" {
			t.Errorf("it resumes at %q", o.point)
		}
		f.tell(o, token.News{Point: "p2"})
		if f.Gaps() != 0 || !f.Heard().Equal(f.clk.Now()) {
			t.Errorf("%d gaps, heard at %s", f.Gaps(), f.Heard())
		}
	})
}

func TestAFollowerTriesAgainWithGrowingPauses(t *testing.T) {
	follow(t, func(_ *testing.T, f *following) {
		f.next(errors.New("connection refused"))
		for _, ms := range []time.Duration{75, 150, 300, 600, 1200, 1500, 1500} {
			f.pass(ms*time.Millisecond - 1)
			f.none()
			f.pass(1)
			f.next(errors.New("connection refused"))
		}
		f.pass(1500 * time.Millisecond)
		o := f.next(nil)
		f.tell(o, token.News{Point: "p1"})
		o.fail <- errors.New("connection reset")
		f.pass(75 * time.Millisecond) // it was heard, so it begins anew
		f.next(nil)
	})
}

func TestAFeedThatCannotBeResumedHasEveryTokenRefreshed(t *testing.T) {
	for _, reason := range []*fault.Fault{
		fault.New(fault.OutOfRange, "RESUME_TOKEN_TOO_OLD", "too old"), fault.New(fault.InvalidArgument, "RESUME_TOKEN_INVALID", "of another log"),
	} {
		t.Run(reason.Reason(), func(t *testing.T) {
			follow(t, func(t *testing.T, f *following) {
				text := f.issue("ann", "a")
				o := f.next(nil)
				f.tell(o, token.News{Point: "p1"})
				o.fail <- errors.New("connection reset")
				f.pass(75 * time.Millisecond)
				f.want("before", text, nil)
				if o = f.next(reason.WithDomain(fault.Domain)); o.point != "p1" {
					t.Errorf("it resumes at %q", o.point)
				}
				f.want("a token from before the gap", text, token.ErrRevoked)
				f.pass(150 * time.Millisecond)
				if o = f.next(nil); o.point != "" || f.Gaps() != 1 {
					t.Errorf("it resumes at %q after %d gaps", o.point, f.Gaps())
				}
				f.want("a token that was refreshed", f.issue("ann", "a"), nil)
			})
		})
	}
}

func TestAFeedThatSaysNothingIsOpenedAgain(t *testing.T) {
	follow(t, func(t *testing.T, f *following) {
		o := f.next(nil)
		for _, point := range []string{"p1", "p2", "p3"} {
			f.tell(o, token.News{Point: point})
			f.pass(44 * time.Second)
			f.none()
		}
		f.pass(time.Second)
		f.pass(75 * time.Millisecond)
		if o = f.next(nil); o.point != "p3" {
			t.Errorf("it resumes at %q", o.point)
		}
		f.pass(45 * time.Second) // one that never says anything
		f.pass(150 * time.Millisecond)
		f.next(nil)
	})
}

func TestAFollowerEndsWithItsContextWhateverItWaitsFor(t *testing.T) {
	follow(t, func(_ *testing.T, f *following) {}) // for the feed to open
	follow(t, func(_ *testing.T, f *following) { f.next(nil) })
	follow(t, func(_ *testing.T, f *following) { f.next(errors.New("connection refused")) })
}
