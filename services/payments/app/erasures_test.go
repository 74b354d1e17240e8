package app

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/server"
)

// profiles is users.v1 as far as payments needs it, behind the real request path: who was erased, and a log of events of
// which a test may say that it was trimmed.
type profiles struct {
	usersv1.UnimplementedUserServiceServer

	mu      sync.Mutex
	erased  []string
	trimmed bool
	refused int         // tokens that were too old
	asked   [][]string  // who was asked about
	events  chan string // who is erased while somebody watches
}

func (p *profiles) WatchUsers(req *usersv1.WatchUsersRequest, s grpc.ServerStreamingServer[usersv1.WatchUsersResponse]) error {
	p.mu.Lock()
	tooOld := p.trimmed && req.GetResumeToken() != ""
	if tooOld {
		p.refused++
	}
	p.mu.Unlock()
	if tooOld {
		return eventlog.ErrTooOld
	}
	if err := s.Send(&usersv1.WatchUsersResponse{ResumeToken: "begin"}); err != nil {
		return err
	}
	for {
		select {
		case id := <-p.events:
			if err := s.Send(&usersv1.WatchUsersResponse{ResumeToken: "after " + id, Event: &usersv1.UserEvent{
				UserId: id, EventType: usersv1.UserEventType_USER_EVENT_TYPE_ERASED,
			}}); err != nil {
				return err
			}
		case <-server.Draining(s.Context()):
			return server.ErrDraining
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// BatchGetUsers answers of one user at a time, as it does of users too large for one answer.
func (p *profiles) BatchGetUsers(_ context.Context, req *usersv1.BatchGetUsersRequest) (*usersv1.BatchGetUsersResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, req.GetUserIds())
	u := &usersv1.User{UserId: req.GetUserIds()[0]}
	if slices.Contains(p.erased, u.GetUserId()) {
		u.ErasedAt = timestamppb.Now()
	}
	return &usersv1.BatchGetUsersResponse{Users: []*usersv1.User{u}, RemainingUserIds: req.GetUserIds()[1:]}, nil
}

// erase has users say that somebody is erased, without an event.
func (p *profiles) erase(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erased = append(p.erased, id)
}

// Whoever was erased while payments did not hear of it is erased all the same: before it heard users for the first time,
// and while it was away for longer than users keeps its events.
func TestErasuresThatWereMissedAreMadeUpFor(t *testing.T) {
	t.Parallel()
	const carol = "0197a000-0000-7000-8000-00000000000c"
	dir := t.TempDir()
	auths, known := listen(t, "127.0.0.1:0"), &kittest.Counted{Listener: listen(t, "127.0.0.1:0")}
	a := startAuth(t, filepath.Join(dir, "pki"), auths)
	a.mu.Lock()
	a.active[carol] = true
	a.mu.Unlock()
	users := &profiles{events: make(chan string)}
	kittest.Start(t, func(r grpc.ServiceRegistrar) { usersv1.RegisterUserServiceServer(r, users) }, func(o *kittest.Options) {
		o.Name, o.Dir, o.Listener = "users", filepath.Join(dir, "pki"), known
	})
	cfg := config(dir, "passthrough:///"+auths.Addr().String())

	charged := map[string]string{} // the payment of each
	r := run(t, cfg)               // users is not there
	orders := dial(t, r, "orders", "")
	for _, id := range []string{ann, bob, carol} {
		req := request("key-"+id, id)
		req.Metadata = map[string]string{"note": "of " + id}
		resp, err := orders.Charge(limit(t), req)
		if err != nil {
			t.Fatal(err)
		}
		charged[id] = resp.GetPayment().GetPaymentId()
	}
	note := func(id string) string {
		t.Helper()
		resp, err := orders.GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: charged[id]})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPayment().GetMetadata()["note"]
	}
	// want waits until what was written of one is gone, and checks that it is there of the others.
	want := func(gone string, stay ...string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); note(gone) != ""; {
			if time.Now().After(end) {
				t.Fatalf("what was written of %s is still there", gone)
			}
		}
		for _, id := range stay {
			if note(id) != "of "+id {
				t.Errorf("of %s there is %q", id, note(id))
			}
		}
	}
	restart := func() {
		r.stop()
		r = run(t, cfg)
		orders = dial(t, r, "orders", "")
	}

	// It hears users for the first time, and there is no event of ann.
	users.erase(ann)
	cfg.Users = "passthrough:///" + known.Addr().String()
	restart()
	want(ann, bob, carol)
	// An event moves the place that it has heard up to.
	users.erase(carol)
	select {
	case users.events <- carol:
	case <-limit(t).Done():
		t.Fatal("nobody watches")
	}
	want(carol, bob)
	if n := known.Accepted(); n != 1 {
		t.Errorf("%d connections to users, want one for questions and events", n)
	}
	// That place is no longer kept when it comes back, nor is the event of bob.
	r.stop()
	users.erase(bob)
	users.mu.Lock()
	users.trimmed = true
	users.mu.Unlock()
	restart()
	want(bob)
	users.mu.Lock()
	if users.refused == 0 || len(users.asked) < 6 {
		t.Errorf("%d tokens were too old, and %v was asked", users.refused, users.asked)
	}
	users.mu.Unlock()
	r.verify(t)
}
