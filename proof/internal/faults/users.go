package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
)

// Users is the users service: imports, users made and changed one by one, and a watcher, all at once.
func Users() Service {
	return Service{
		Name: "users", Peer: "orders",
		Files:    []string{"users.db", "users.db-wal", "users.db-journal"},
		Volatile: volatile,
		Verify:   []string{"verify"},
		New: func(seed uint64, calls Calls) Workload {
			return &users{
				calls: calls, newID: id.Generator(clock.System(), rand.Reader),
				random: mathrand.New(mathrand.NewPCG(seed, 0)), rows: map[string]*row{},
			}
		},
	}
}

// The callers of one load, the rows of one import, and how long a caller waits after a failure.
const (
	importers, makers, changers = 2, 3, 3
	fewestRows, mostRows        = 50, 1500
	pause                       = 10 * time.Millisecond
	// known is how many users that are known already are sent again with what is not.
	known = 100
	// marker is what the emails of the users begin with that tell where the events end for an audit.
	marker = "marker-"
)

// users is the book on a users service.
type users struct {
	calls Calls
	newID func() string

	mu     sync.Mutex
	random *mathrand.Rand
	rows   map[string]*row // by email
	order  []*row          // in the order in which they were asked for
	token  string          // of the events, before the first
	deaf   bool            // what others are told is not noted
}

// row is a user that was asked for.
type row struct {
	email, request string
	id             string    // once it is known
	asked          time.Time // when it was asked for first
	seen           time.Time // when it was first known to be there; zero means never
	settled        bool      // whether the request was answered with OK
	busy           bool      // whether somebody changes it
	changes        []change
}

// change is a new display name that was asked for: its number in changes, from one.
type change struct {
	request string
	asked   time.Time // when it was asked for first
	done    time.Time // when it was answered with OK; zero means never
}

var _ Workload = (*users)(nil)

// Begin implements Workload.
func (u *users) Begin(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := usersv1.NewUserServiceClient(conn).WatchUsers(ctx, &usersv1.WatchUsersRequest{})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	u.token = first.GetResumeToken()
	return err
}

// Load implements Workload.
func (u *users) Load(ctx context.Context, conn *grpc.ClientConn) {
	client := usersv1.NewUserServiceClient(conn)
	var wg sync.WaitGroup
	defer wg.Wait()
	each := func(count int, once func(context.Context, usersv1.UserServiceClient)) {
		for range count {
			wg.Go(func() {
				for ctx.Err() == nil {
					once(ctx, client)
				}
			})
		}
	}
	each(importers, u.importOnce)
	each(makers, u.makeOnce)
	each(changers, u.changeOnce)
	each(1, u.watch)
}

// again calls until the answer is OK or ctx ends, and says which.
func (u *users) again(ctx context.Context, call func() error) bool {
	for {
		ended := u.calls()
		err := call()
		if err != nil && ctx.Err() != nil {
			ended(nil) // the caller gave it up
			return false
		}
		if ended(err); err == nil {
			return true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

// ask notes count more users.
func (u *users) ask(count int) []*row {
	u.mu.Lock()
	defer u.mu.Unlock()
	rows := make([]*row, count)
	for i := range rows {
		r := &row{email: fmt.Sprintf("user-%d@example.com", len(u.order)), request: u.newID(), asked: time.Now()}
		u.rows[r.email], rows[i] = r, r
		u.order = append(u.order, r)
	}
	return rows
}

// answered notes that rows are there, each with its id where that is told.
func (u *users) answered(settled bool, id string, rows ...*row) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range rows {
		if r.seen.IsZero() {
			r.seen = now
		}
		r.settled = r.settled || settled
		if id != "" {
			r.id = id
		}
	}
}

// name is a display name: which change of a user it is.
func name(number int) string { return fmt.Sprintf("name %d", number) }

func (r *row) create() *usersv1.CreateUserRequest {
	return &usersv1.CreateUserRequest{
		Email: r.email, DisplayName: name(0), FirstName: "Ada", LastName: "Lovelace", RequestId: r.request,
		Labels: map[string]string{"plan": "pro"},
	}
}

func (u *users) importOnce(ctx context.Context, client usersv1.UserServiceClient) {
	u.mu.Lock()
	count := fewestRows + u.random.IntN(mostRows-fewestRows+1)
	u.mu.Unlock()
	rows := u.ask(count)
	u.again(ctx, func() error { return u.send(ctx, client, rows) })
}

// send imports rows, each of which must count as made, and notes that.
func (u *users) send(ctx context.Context, client usersv1.UserServiceClient, rows []*row) error {
	stream, err := client.CreateUsers(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := stream.Send(&usersv1.CreateUsersRequest{User: r.create()}); err != nil {
			break // why is for the answer to say
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if int(resp.GetCreatedCount()) != len(rows) || resp.GetFailedCount() != 0 {
		return fmt.Errorf("of %d rows %d count as made and %d as failed: %v", len(rows), resp.GetCreatedCount(), resp.GetFailedCount(), resp.GetFailures()[:min(len(resp.GetFailures()), 3)])
	}
	u.answered(true, "", rows...)
	return nil
}

func (u *users) makeOnce(ctx context.Context, client usersv1.UserServiceClient) {
	r := u.ask(1)[0]
	u.again(ctx, func() error {
		resp, err := client.CreateUser(ctx, r.create())
		if err == nil {
			u.answered(true, resp.GetUser().GetUserId(), r)
		}
		return err
	})
}

// changeOnce changes a user whose id is known.
func (u *users) changeOnce(ctx context.Context, client usersv1.UserServiceClient) {
	r := u.pick()
	if r == nil {
		select {
		case <-time.After(pause): // until somebody has made one
		case <-ctx.Done():
		}
		return
	}
	if u.again(ctx, func() error { return u.change(ctx, client, r) }) {
		u.mu.Lock()
		r.busy = false
		u.mu.Unlock()
	}
}

// pick takes a user that nobody changes, and notes that it is about to be changed.
func (u *users) pick() *row {
	u.mu.Lock()
	defer u.mu.Unlock()
	for range 20 {
		if len(u.order) == 0 {
			return nil
		}
		r := u.order[u.random.IntN(len(u.order))]
		if r.id != "" && !r.busy {
			r.busy = true
			r.changes = append(r.changes, change{request: u.newID(), asked: time.Now()})
			return r
		}
	}
	return nil
}

// change sends the last change of a user.
func (u *users) change(ctx context.Context, client usersv1.UserServiceClient, r *row) error {
	u.mu.Lock()
	number := len(r.changes)
	req := &usersv1.UpdateUserRequest{
		User: &usersv1.User{UserId: r.id, DisplayName: name(number)}, RequestId: r.changes[number-1].request,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}},
	}
	u.mu.Unlock()
	resp, err := client.UpdateUser(ctx, req)
	if err != nil {
		return err
	}
	if got := resp.GetUser().GetDisplayName(); got != name(number) {
		return fmt.Errorf("%s is %q after the change to %q", r.email, got, name(number))
	}
	now := time.Now()
	u.mu.Lock()
	r.changes[number-1].done = now
	u.mu.Unlock()
	return nil
}

// watch notes the users of whom others are told: they are stored, whatever becomes of the call that made them.
func (u *users) watch(ctx context.Context, client usersv1.UserServiceClient) {
	stream, err := client.WatchUsers(ctx, &usersv1.WatchUsersRequest{})
	for err == nil {
		var resp *usersv1.WatchUsersResponse
		if resp, err = stream.Recv(); err == nil && resp.GetEvent() != nil {
			u.mu.Lock()
			r, deaf := u.rows[resp.GetEvent().GetUser().GetEmail()], u.deaf
			u.mu.Unlock()
			if r != nil && !deaf {
				u.answered(false, resp.GetEvent().GetUserId(), r)
			}
		}
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// Settle implements Workload.
func (u *users) Settle(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	client := usersv1.NewUserServiceClient(conn)
	var rows, changed []*row
	u.mu.Lock()
	for _, r := range u.order {
		if !r.settled {
			rows = append(rows, r)
		}
		if n := len(r.changes); n > 0 && r.changes[n-1].done.IsZero() {
			changed = append(changed, r)
		}
	}
	for range min(known, len(u.order)) {
		if r := u.order[u.random.IntN(len(u.order))]; r.settled {
			rows = append(rows, r) // even twice in one import
		}
	}
	u.mu.Unlock()
	if err := u.send(ctx, client, rows); err != nil {
		return fmt.Errorf("send %d rows again: %w", len(rows), err)
	}
	for _, r := range changed {
		if err := u.change(ctx, client, r); err != nil {
			return fmt.Errorf("send a change again: %w", err)
		}
		u.mu.Lock()
		r.busy = false
		u.mu.Unlock()
	}
	return nil
}

// Again implements Workload.
func (u *users) Again(ctx context.Context, conn *grpc.ClientConn) {
	_ = u.Settle(ctx, conn) // it need not be answered
}

// Probe implements Workload.
func (u *users) Probe(ctx context.Context, conn *grpc.ClientConn) error {
	r := u.ask(1)[0]
	resp, err := usersv1.NewUserServiceClient(conn).CreateUser(ctx, r.create())
	if err == nil {
		u.answered(true, resp.GetUser().GetUserId(), r)
	}
	return err
}

// Look implements Workload.
func (u *users) Look(ctx context.Context, conn *grpc.ClientConn) error {
	u.mu.Lock()
	var id string
	for _, r := range u.order {
		if r.id != "" && r.settled {
			id = r.id
			break
		}
	}
	u.mu.Unlock()
	if id == "" {
		return errors.New("nobody is known yet")
	}
	client := usersv1.NewUserServiceClient(conn)
	if _, err := client.GetUser(ctx, &usersv1.GetUserRequest{UserId: id}); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if _, err := client.ListUsers(ctx, &usersv1.ListUsersRequest{PageSize: 10}); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return nil
}

// Ordered implements Workload: what is asked of the order of users, Audit asks.
func (u *users) Ordered() Audit { return Audit{} }

// AnswersAlone implements Workload.
func (u *users) AnswersAlone(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.deaf = on
}

// Acknowledged implements Workload.
func (u *users) Acknowledged(since, by time.Time) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	count := 0
	for _, r := range u.order {
		if within(r.asked, r.seen, since, by) {
			count++
		}
		for _, c := range r.changes {
			if within(c.asked, c.done, since, by) {
				count++
			}
		}
	}
	return count
}

// within says whether something was asked for after since, and done by then; never done is the zero time.
func within(asked, done, since, by time.Time) bool {
	return !done.IsZero() && !done.After(by) && (since.IsZero() || asked.After(since))
}

// all reads a snapshot of all users.
func all(ctx context.Context, client usersv1.UserServiceClient) (map[string][]*usersv1.User, error) {
	stream, err := client.StreamUsers(ctx, &usersv1.StreamUsersRequest{})
	if err != nil {
		return nil, err
	}
	found := make(map[string][]*usersv1.User)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("stream users: %w", err)
		}
		found[resp.GetUser().GetEmail()] = append(found[resp.GetUser().GetEmail()], resp.GetUser())
	}
}
