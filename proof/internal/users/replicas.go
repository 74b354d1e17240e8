package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// clients are who make and read users while a replica is killed.
const clients = 16

// replicas kills one of two services on one database while it is used, and counts the calls that failed and the events that a
// watcher lacks, or has twice or out of order.
func (r *run) replicas(ctx context.Context, server *postgres.Server) (figures []figure.Figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	data, err := server.Create(ctx)
	if err != nil {
		return nil, err
	}
	var both [2]*service.Process
	for i := range both {
		if both[i], err = r.start(ctx, fmt.Sprintf("replica-%d", i), data); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, both[i].Stop()) }()
	}
	conn, err := r.dial(both[0], both[1])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	watchers, err := watchBoth(ctx, conn, both)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, w := range watchers {
			w.stop()
		}
	}()
	l := newLoad(usersv1.NewUserServiceClient(conn))
	calls, end := context.WithCancel(ctx)
	defer end()
	l.run(calls)
	if err := l.await(ctx, r.acknowledged); err != nil {
		return nil, err
	}
	killed := time.Now()
	if err := both[0].Kill(); err != nil {
		return nil, err
	}
	if err := l.await(ctx, r.acknowledged); err != nil {
		return nil, err
	}
	l.end()
	last, err := l.create(ctx) // its event is the last one
	if err != nil {
		return nil, err
	}
	made := l.made()
	var seen [2][]string
	wrong := 0
	for i, w := range watchers {
		if seen[i], err = w.until(ctx, last); err != nil {
			return nil, err
		}
		wrong += differences(made, seen[i])
	}
	if !slices.Equal(seen[0], seen[1]) {
		wrong++
	}
	r.out.Table("two replicas on one PostgreSQL, one killed under load", [][]string{
		{"calls", fmt.Sprint(l.calls.Load())},
		{"failed", fmt.Sprint(l.failed.Load()), l.why()},
		{"longest call, ms", fmt.Sprintf("%.0f", milliseconds(time.Duration(l.longest.Load())))},
		{"events", fmt.Sprint(len(made))},
		{"lost, twice or out of order, of 2 watchers", fmt.Sprint(wrong)},
		{"resumed, ms after the kill", fmt.Sprintf("%.0f", milliseconds(watchers[0].resumed().Sub(killed)))},
	})
	return []figure.Figure{
		{Name: "users.failed_calls_on_replica_kill", Value: float64(l.failed.Load()), Runs: 1},
		{Name: "users.wrong_events_on_replica_kill", Value: float64(wrong), Runs: 1},
	}, nil
}

// differences counts the ids that are in want and not in have, those that are there too often, and those that nobody wants.
func differences(want, have []string) (n int) {
	left := make(map[string]int, len(want))
	for _, id := range want {
		left[id]++
	}
	for _, id := range have {
		left[id]--
	}
	for _, count := range left {
		n += max(count, -count)
	}
	return n
}

// mixed is clients that make users and read them.
type mixed struct {
	client                 usersv1.UserServiceClient
	next                   atomic.Int64
	calls, failed, longest atomic.Int64
	done                   chan struct{} // gets a value for each user that was made and read
	stop                   chan struct{}
	over                   sync.WaitGroup

	mu    sync.Mutex
	ids   []string
	cause error
}

func newLoad(client usersv1.UserServiceClient) *mixed {
	return &mixed{client: client, done: make(chan struct{}), stop: make(chan struct{})}
}

// run begins to call.
func (l *mixed) run(ctx context.Context) {
	for range clients {
		l.over.Go(func() {
			for {
				var id string
				l.call(func() (err error) {
					id, err = l.create(ctx)
					return err
				})
				l.call(func() error {
					_, err := l.client.GetUser(ctx, &usersv1.GetUserRequest{UserId: id})
					return err
				})
				select {
				case l.done <- struct{}{}:
				case <-l.stop:
					return
				}
			}
		})
	}
}

// create makes the next user and returns its id.
func (l *mixed) create(ctx context.Context) (string, error) {
	u, err := l.client.CreateUser(ctx, person(int(l.next.Add(1))))
	if err != nil {
		return "", err
	}
	id := u.GetUser().GetUserId()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, id)
	return id, nil
}

// call makes a call and counts how it went.
func (l *mixed) call(do func() error) {
	began := time.Now()
	err := do()
	l.calls.Add(1)
	took := int64(time.Since(began))
	for now := l.longest.Load(); took > now && !l.longest.CompareAndSwap(now, took); now = l.longest.Load() {
	}
	if err == nil {
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause = err
}

// await waits until so many more users were made and read.
func (l *mixed) await(ctx context.Context, count int) error {
	for range count {
		select {
		case <-l.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for calls: %w", ctx.Err())
		}
	}
	return nil
}

// end waits until nobody calls any more.
func (l *mixed) end() {
	close(l.stop)
	l.over.Wait()
}

// made returns the ids of the users who were made.
func (l *mixed) made() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids)
}

// why returns how one of the calls failed.
func (l *mixed) why() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		return ""
	}
	return l.cause.Error()
}

// watcher follows the events of all users, over as many streams as it takes.
type watcher struct {
	stop context.CancelFunc

	mu    sync.Mutex
	ids   []string
	again time.Time
	err   error
	news  chan struct{} // closed and made anew with each event
}

// watchBoth begins a watch on each of the replicas over one connection to both, the first watch on the first of them.
func watchBoth(ctx context.Context, conn *grpc.ClientConn, both [2]*service.Process) (watchers [2]*watcher, err error) {
	client := usersv1.NewUserServiceClient(conn)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for watchers[0] == nil || watchers[1] == nil {
		// Calls go to those who are connected already, so that it may take some until each has had one.
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		stream, err := client.WatchUsers(own, &usersv1.WatchUsersRequest{})
		if err != nil {
			stop()
			return watchers, err
		}
		first, err := stream.Recv()
		if err != nil {
			stop()
			return watchers, err
		}
		p, _ := peer.FromContext(stream.Context())
		i := slices.IndexFunc(both[:], func(s *service.Process) bool { return p != nil && p.Addr.String() == s.Address })
		if ctx.Err() != nil {
			stop()
			return watchers, fmt.Errorf("no stream on one of the replicas: %w", ctx.Err())
		}
		if i < 0 || watchers[i] != nil {
			stop()
			continue
		}
		w := &watcher{stop: stop, news: make(chan struct{})}
		watchers[i] = w
		go w.follow(own, client, stream, first.GetResumeToken())
	}
	return watchers, nil
}

// follow reads a stream, and each that follows after it broke, until the watcher is stopped.
func (w *watcher) follow(ctx context.Context, client usersv1.UserServiceClient, stream grpc.ServerStreamingClient[usersv1.WatchUsersResponse], token string) {
	for ctx.Err() == nil {
		resp, err := stream.Recv()
		for err != nil {
			if ctx.Err() != nil {
				return
			}
			if !unavailable(err) {
				w.fail(err)
				return
			}
			if stream, err = client.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: token}); err == nil {
				w.resume()
				resp, err = stream.Recv()
			}
		}
		token = resp.GetResumeToken()
		if e := resp.GetEvent(); e != nil {
			w.add(e.GetUserId())
		}
	}
}

// unavailable says whether a stream that ended like this is to be opened again.
func unavailable(err error) bool {
	return fault.KindOf(err) == fault.Unavailable || status.Code(err) == codes.Unavailable
}

func (w *watcher) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	close(w.news)
	w.news = make(chan struct{})
}

func (w *watcher) add(id string)  { w.change(func() { w.ids = append(w.ids, id) }) }
func (w *watcher) fail(err error) { w.change(func() { w.err = err }) }
func (w *watcher) resume()        { w.change(func() { w.again = time.Now() }) }

// resumed returns when the last stream was opened again.
func (w *watcher) resumed() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.again
}

// until waits until the watcher has the event of a user, and returns the ids of the users of all events up to it.
func (w *watcher) until(ctx context.Context, last string) ([]string, error) {
	for {
		w.mu.Lock()
		ids, news, err := w.ids, w.news, w.err
		w.mu.Unlock()
		if i := slices.Index(ids, last); i >= 0 {
			return slices.Clone(ids[:i+1]), nil
		}
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the last of the events, after %d: %w", len(ids), ctx.Err())
		}
	}
}
