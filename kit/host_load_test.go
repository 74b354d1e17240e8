package kit_test

import (
	"context"
	"errors"
	"sync"
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

// More calls are under way at once than can ever be done in time: with --shed-load some are refused, and without it none is.
func TestACrowdIsRefusedOnlyWhereThatIsAskedFor(t *testing.T) {
	const crowd, conns = 1500, 2 // a connection carries a thousand
	for name, shed := range map[string]bool{"by default": false, "with --shed-load": true} {
		t.Run(name, func(t *testing.T) {
			inside, release := make(chan struct{}, crowd), make(chan struct{})
			goOn := sync.OnceFunc(func() { close(release) })
			defer goOn()
			h := host(t, clock.System(), echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
				inside <- struct{}{}
				<-release
				return req, nil
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
			ended := make(chan error, crowd)
			for i := range crowd {
				go func() { // on the deadline of the method, two seconds
					ended <- to[i%conns].Invoke(t.Context(), echo.Public, echo.Message("", ""), echo.Message("", ""))
				}()
			}
			refused := 0
			for n, in := 0, 0; n+in < crowd; {
				select {
				case <-inside:
					in++
				case err := <-ended:
					n++
					if grpcfault.FromError(err).Reason() == "OVERLOADED" {
						refused++
					}
				}
			}
			goOn()
			if (refused > 0) != shed {
				t.Errorf("%d of %d calls were refused", refused, crowd)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A call that does not end is waited for as long as --drain-timeout says, and then cut.
func TestAStopTakesAsLongAsTheSettingSays(t *testing.T) {
	const bound = 300 * time.Millisecond
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
	if took := time.Since(began); took < bound || took > bound+3*time.Second {
		t.Errorf("the stop took %s, want %s", took, bound)
	}
	if f := grpcfault.FromError(stream.RecvMsg(echo.Message("", ""))); f == nil || f.Kind() != fault.Unavailable {
		t.Errorf("the stream ended with %v", f)
	}
}
