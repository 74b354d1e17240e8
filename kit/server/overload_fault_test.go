package server_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/pki"
)

func TestACrowdIsToldToComeBackWhileHealthAndStreamsGoOn(t *testing.T) {
	release := make(chan struct{})
	h := kittest.Start(t, echo.Handlers{
		Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
			<-release
			return req, nil
		},
		Chat: echo.Back,
	}.Register, func(o *kittest.Options) { o.ShedLoad = true })
	const crowd = 1500
	refused := make(chan error, crowd)
	var wg sync.WaitGroup
	conns := []*grpc.ClientConn{h.Anonymous(), h.Anonymous()} // each may carry a thousand calls
	for i := range crowd {
		wg.Go(func() {
			if _, err := echo.Call(t, conns[i%2], echo.Keyed, "", "key"); err != nil {
				refused <- err
			}
		})
	}
	f := kittest.WantFault(t, <-refused, codes.ResourceExhausted, "OVERLOADED")
	if f.RetryAfter() <= 0 {
		t.Error("nobody says when to come back")
	}
	other := h.AsService("orders")
	if _, err := healthpb.NewHealthClient(other).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	s := openStream(t, t.Context(), other, echo.Chat, echo.Message("hi", ""))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Errorf("a stream: %v", err)
	}
	close(release)
	wg.Wait()
	close(refused)
	n := 1
	for err := range refused {
		kittest.WantFault(t, err, codes.ResourceExhausted, "OVERLOADED")
		n++
	}
	if n > crowd/2 {
		t.Errorf("%d of %d calls were refused; a thousand may be under way", n, crowd)
	}
	if _, err := echo.Call(t, conns[0], echo.Public, "", ""); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// serveEnv makes this test binary the server of BenchmarkOverload: it holds the directory of the PKI.
const serveEnv = "CONCORDAT_TEST_OVERLOAD_PKI"

// TestServeForOverload is the other process of BenchmarkOverload, and is skipped everywhere else. It serves calls of two
// milliseconds of a processor each until its input ends.
func TestServeForOverload(t *testing.T) {
	dir := os.Getenv(serveEnv)
	if dir == "" {
		t.Skip("serves BenchmarkOverload alone")
	}
	work := func(rounds int) {
		sum := sha256.Sum256(nil)
		for range rounds {
			sum = sha256.Sum256(sum[:])
		}
	}
	const rounds = 20_000
	best := time.Hour
	for range 10 {
		began := time.Now()
		work(rounds)
		best = min(best, time.Since(began))
	}
	each := int(rounds * float64(2*time.Millisecond) / float64(best))
	h, address := onPort(t, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		work(each)
		return req, nil
	}}, func(o *kittest.Options) { o.Dir, o.ShedLoad = dir, true })
	fmt.Println("serving", address)
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = h
}

// BenchmarkOverload measures a server with one processor and a handler that computes, from another process: its goodput
// at the best of times, then with five times as many calls. It reports the goodput under the crowd as a share of the
// best, and the 99th percentile of a refusal in milliseconds.
func BenchmarkOverload(b *testing.B) {
	dir := b.TempDir()
	dev, err := pki.NewDevelopment(dir, "concordat", clock.System())
	if err != nil {
		b.Fatal(err)
	}
	id, err := dev.Identity(b.Context(), "orders", nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestServeForOverload$", "-test.v")
	cmd.Env = append(os.Environ(), serveEnv+"="+dir, "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}()
	address := ""
	for buffer, text := make([]byte, 4096), ""; address == ""; {
		n, err := out.Read(buffer)
		if err != nil {
			b.Fatal(err)
		}
		text += string(buffer[:n])
		if _, after, ok := strings.Cut(text, "serving "); ok && strings.Contains(after, "\n") {
			address, _, _ = strings.Cut(after, "\n")
		}
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		b.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(id.ClientTLS("test"))))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	call := func() error {
		ctx, cancel := context.WithTimeout(b.Context(), 500*time.Millisecond)
		defer cancel()
		return conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""))
	}
	for b.Loop() {
		peak := closed(call, 4, 3*time.Second)
		opened(call, 5*peak, 3*time.Second)
		under := opened(call, 5*peak, 5*time.Second)
		b.ReportMetric(peak, "peak/s")
		b.ReportMetric(under.goodput/peak, "of-peak")
		b.ReportMetric(float64(under.refusal(0.5).Microseconds())/1000, "refusal-p50-ms")
		b.ReportMetric(float64(under.refusal(0.99).Microseconds())/1000, "refusal-p99-ms")
		b.ReportMetric(float64(under.other), "other")
	}
}

// closed returns how many calls a second a few callers get done, each sending its next when the last is answered.
func closed(call func() error, callers int, run time.Duration) float64 {
	var mu sync.Mutex
	var wg sync.WaitGroup
	done := 0
	end := time.Now().Add(run)
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) {
				if call() == nil {
					mu.Lock()
					done++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return float64(done) / run.Seconds()
}

// crowd is what became of calls that were sent at a rate.
type crowd struct {
	goodput  float64 // answered within their deadline, a second
	refusals []time.Duration
	other    int // neither answered nor refused
}

func (c crowd) refusal(share float64) time.Duration {
	if len(c.refusals) == 0 {
		return 0
	}
	return c.refusals[int(share*float64(len(c.refusals)-1))]
}

// opened sends so many calls a second, whatever becomes of those before.
func opened(call func() error, rate float64, run time.Duration) crowd {
	var (
		mu  sync.Mutex
		wg  sync.WaitGroup
		got crowd
	)
	began := time.Now()
	for sent := 0; time.Since(began) < run; time.Sleep(time.Millisecond) {
		for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
			wg.Go(func() {
				sentAt := time.Now()
				err := call()
				took := time.Since(sentAt)
				mu.Lock()
				defer mu.Unlock()
				switch f := grpcfault.FromError(err); {
				case err == nil:
					got.goodput++
				case f.Reason() == "OVERLOADED":
					got.refusals = append(got.refusals, took)
				default:
					got.other++
				}
			})
		}
	}
	wg.Wait()
	got.goodput /= run.Seconds()
	slices.Sort(got.refusals)
	return got
}
