package api_test

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/users/internal/api"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// BenchmarkAThousandWatchers has each new user told to 1,000 watchers on four connections over TCP. cpu-ns/event is what the
// process takes for an event at a watcher, those who watch and a share of the new user included.
func BenchmarkAThousandWatchers(b *testing.B) {
	store, err := sqlstore.Open(b.Context(), sqlstore.Options{Dir: b.TempDir(), Clock: clock.System(), Random: rand.Reader})
	if err != nil {
		b.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	b.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	service := users.NewService(users.Deps{
		Store: store, Clock: clock.System(), NewID: id.Generator(clock.System(), rand.Reader), PurgeAfter: purgeAfter,
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	h := kittest.Start(b, api.New(service, store.PageKey()).Register, func(o *kittest.Options) {
		o.Name, o.Listener, o.Logger = "users", listener, slog.New(slog.NewJSONHandler(io.Discard, nil))
	})
	const (
		watchers    = 1000
		connections = 4
	)
	var left atomic.Int64 // who has not been told of the newest event
	all := make(chan struct{}, 1)
	for range connections {
		c := admin(h)
		for range watchers / connections {
			stream, err := c.WatchUsers(ctx, &usersv1.WatchUsersRequest{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil { // it stands
				b.Fatal(err)
			}
			go func() {
				for {
					if m, err := stream.Recv(); err != nil {
						return // the end of the benchmark
					} else if m.GetEvent() != nil && left.Add(-1) == 0 {
						all <- struct{}{}
					}
				}
			}()
		}
	}
	c, n := admin(h), 0
	before := processorTime(b)
	for b.Loop() {
		left.Store(watchers)
		if _, err := c.CreateUser(ctx, request(n)); err != nil {
			b.Fatal(err)
		}
		<-all
		n++
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(n*watchers), "cpu-ns/event")
}

// processorTime returns what the process has taken so far, in nanoseconds.
func processorTime(b *testing.B) int64 {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
