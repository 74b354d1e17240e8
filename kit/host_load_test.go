package kit_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// More callers are there at once than can ever be answered in time: with --shed-load some are refused, and without it none is.
func TestACrowdIsRefusedOnlyWhereThatIsAskedFor(t *testing.T) {
	const crowd, conns = 1500, 2 // a connection carries a thousand
	for name, shed := range map[string]bool{"by default": false, "with --shed-load": true} {
		t.Run(name, func(t *testing.T) {
			var entered atomic.Int64
			all, refused, release := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
			h := host(t, clock.System(), echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
				if entered.Add(1) == crowd {
					close(all)
				}
				select {
				case <-release:
				case <-ctx.Done(): // after two seconds, as its policy says
				}
				return req, ctx.Err()
			}}, func(context.Context) error { return nil }, func(c *kit.Common) { c.ShedLoad = shed })
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			<-h.Ready()
			var to [conns]*grpc.ClientConn
			for i := range to {
				var err error
				if to[i], err = grpc.NewClient(h.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(h.Identity.ClientTLS("test")))); err != nil {
					t.Fatal(err)
				}
				defer to[i].Close()
			}
			callers, leave := context.WithTimeout(t.Context(), time.Minute)
			defer leave()
			var group sync.WaitGroup
			for i := range crowd {
				group.Go(func() { // again and again, so that they are many at once also where they come slowly
					for callers.Err() == nil {
						err := to[i%conns].Invoke(callers, echo.Public, echo.Message("", ""), echo.Message("", ""))
						if err == nil {
							return // released
						}
						if grpcfault.FromError(err).Reason() == "OVERLOADED" {
							select {
							case refused <- struct{}{}:
							default:
							}
							return
						}
					}
				})
			}
			enough := (<-chan struct{})(all)
			if shed {
				enough = refused
			}
			select {
			case <-enough:
			case <-callers.Done():
				t.Errorf("after a minute %d calls have entered, and none was refused", entered.Load())
			}
			if !shed && len(refused) > 0 {
				t.Error("a call was refused")
			}
			close(release)
			group.Wait()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A call that does not end is waited for as long as --drain-timeout says, and then cut.
func TestAStopTakesAsLongAsTheSettingSays(t *testing.T) {
	const bound, other = 300 * time.Millisecond, 5 * time.Second // the setting, and that of host
	inside := make(chan struct{})
	h := host(t, clock.System(), echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		close(inside)
		<-s.Context().Done()
		return s.Context().Err()
	}}, func(context.Context) error { return nil }, func(c *kit.Common) { c.DrainTimeout = bound })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	conn, err := grpc.NewClient(h.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(h.Identity.ClientTLS("test"))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
	if err == nil {
		err = errors.Join(stream.SendMsg(echo.Message("", "")), stream.CloseSend())
	}
	if err != nil {
		t.Fatal(err)
	}
	<-inside
	began := time.Now()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < bound || took >= other {
		t.Errorf("the stop took %s, want %s", took, bound)
	}
	if f := grpcfault.FromError(stream.RecvMsg(echo.Message("", ""))); f == nil || f.Kind() != fault.Unavailable {
		t.Errorf("the stream ended with %v", f)
	}
}
