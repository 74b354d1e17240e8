package api_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
)

// watcher reads a watch.
type watcher struct {
	t      *testing.T
	stream usersv1.UserService_WatchUsersClient
	token  string
}

// watch opens a watch and waits until it stands: what happens from now on is seen.
func watch(t *testing.T, c usersv1.UserServiceClient, filter, token string) *watcher {
	t.Helper()
	stream, err := c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{Filter: filter, ResumeToken: token})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetEvent() != nil || first.GetResumeToken() == "" {
		t.Fatalf("the first message is %v, %v; want a bare resume point", first, err)
	}
	return &watcher{t, stream, first.GetResumeToken()}
}

// next returns the next event, as its type without prefix, the end of the id and whether the user matches.
func (w *watcher) next() string {
	w.t.Helper()
	msg, err := w.stream.Recv()
	for err == nil && msg.GetEvent() == nil { // a heartbeat: the machine has other things to do
		msg, err = w.stream.Recv()
	}
	if err != nil || msg.GetResumeToken() == "" {
		w.t.Fatalf("got %v, %v", msg, err)
	}
	w.token = msg.GetResumeToken()
	e := msg.GetEvent()
	text := strings.TrimPrefix(e.GetEventType().String(), "USER_EVENT_TYPE_") + " " + e.GetUserId()[35:]
	if e.GetMatches() {
		text += " matches"
	}
	return text
}

func (w *watcher) want(events ...string) {
	w.t.Helper()
	var got []string
	for range events {
		got = append(got, w.next())
	}
	if !slices.Equal(got, events) {
		w.t.Fatalf("got %q, want %q", got, events)
	}
}

func TestAWatchTellsOfThoseWhoMatchBeforeOrAfter(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	all, pro := watch(t, c, "", ""), watch(t, c, `labels.plan = "pro"`, "")
	beginning := pro.token
	for n := 1; n <= 3; n++ {
		req := request(n)
		if n == 2 {
			req.Labels = map[string]string{"plan": "pro"}
		}
		create(t, c, req)
	}
	ok := must(t)
	first, second := &life{t: t, c: c, id: request(1).GetUserId()}, &life{t: t, c: c, id: request(2).GetUserId(), n: 100}
	plan := func(l *life, plan string) {
		t.Helper()
		update(t, c, 200+l.n, &usersv1.User{UserId: l.id, Labels: map[string]string{"plan": plan}}, "labels.plan")
		l.n++
	}
	plan(first, "pro")
	plan(first, "free")
	ok(first.disable())
	ok(second.disable())
	ok(second.disable()) // changes nothing and tells nothing
	ok(second.enable())
	ok(second.delete())
	ok(second.undelete())
	// One who was pro is told of once more, as one who is no longer.
	seen := "CREATED 2 matches, UPDATED 1 matches, UPDATED 1, DISABLED 2 matches, ENABLED 2 matches, DELETED 2 matches, UNDELETED 2 matches"
	pro.want(strings.Split(seen, ", ")...)
	ok(second.erase())
	ok(first.erase())
	all.want("CREATED 1 matches", "CREATED 2 matches", "CREATED 3 matches", "UPDATED 1 matches", "UPDATED 1 matches", "DISABLED 1 matches",
		"DISABLED 2 matches", "ENABLED 2 matches", "DELETED 2 matches", "UNDELETED 2 matches", "ERASED 2", "ERASED 1")
	pro.want("ERASED 2", "ERASED 1") // which is for everyone

	// Who comes late is told nothing of what was erased meanwhile but that it was.
	watch(t, c, `labels.plan = "pro"`, beginning).want("ERASED 2", "ERASED 1")
}

func TestAWatchGoesOnFromItsToken(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	first := watch(t, c, "verified", "")
	create(t, c, full(1))
	create(t, c, request(2))
	first.want("CREATED 1 matches")
	token := first.token
	create(t, c, full(3))
	create(t, c, full(4))
	watch(t, c, "verified", token).want("CREATED 3 matches", "CREATED 4 matches")
	for _, filter := range []string{"", "NOT verified", "verified "} {
		err := received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{Filter: filter, ResumeToken: token}))
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID"), "resume_token")
	}
	err := received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{ResumeToken: strings.Repeat("x", 257)}))
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "resume_token")
}

func TestWhatWatchersShareOfAnEventEndsWithItsErasure(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	one, other, filtered := watch(t, c, "", ""), watch(t, c, "", ""), watch(t, c, `display_name = "Nobody"`, "")
	from := one.token
	user := create(t, c, request(1))
	told := func(w *watcher) *usersv1.WatchUsersResponse {
		t.Helper()
		msg, err := w.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	first, same := told(one), told(other)
	if !proto.Equal(first, same) || first.GetEvent().GetUser().GetEmail() != user.GetEmail() {
		t.Errorf("two who watch the same are told %v and %v", first, same)
	}
	if _, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{
		User:       &usersv1.User{UserId: user.GetUserId(), DisplayName: "Nobody", Etag: user.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}}, RequestId: requestID(90),
	}); err != nil {
		t.Fatal(err)
	}
	// Who watches something else is told of the same event in a message of its own.
	if all, some := told(one), told(filtered); all.GetResumeToken() == some.GetResumeToken() ||
		!proto.Equal(all.GetEvent().GetUser(), some.GetEvent().GetUser()) || !some.GetEvent().GetMatches() {
		t.Errorf("two who watch different things are told %v and %v", all, some)
	}
	if _, err := c.EraseUser(timeout(t), &usersv1.EraseUserRequest{UserId: user.GetUserId(), RequestId: requestID(91)}); err != nil {
		t.Fatal(err)
	}
	resumed, err := c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{ResumeToken: from})
	if err != nil {
		t.Fatal(err)
	}
	for erased := false; !erased; {
		msg, err := resumed.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if email := msg.GetEvent().GetUser().GetEmail(); email != "" {
			t.Errorf("%v shows the address of somebody who was erased", msg)
		}
		erased = msg.GetEvent().GetEventType() == usersv1.UserEventType_USER_EVENT_TYPE_ERASED
	}
}

func TestAResumeTokenWithAnyBitFlippedIsRefused(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	token := watch(t, c, "", "").token
	for i := range token {
		for bit := range 7 {
			flipped := []byte(token)
			flipped[i] ^= 1 << bit
			err := received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{ResumeToken: string(flipped)}))
			if kittest.WantFault(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID"); t.Failed() {
				t.Fatalf("character %d, bit %d", i, bit)
			}
		}
	}
	watch(t, c, "", token)
}

func TestAWatchEndsWithItsResumePointWhenTheServerStops(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	w := watch(t, c, "", "")
	create(t, c, request(1))
	w.want("CREATED 1 matches")
	stopping(t, h, c)
	_, err := w.stream.Recv()
	if f := kittest.WantFault(t, err, codes.Unavailable, "DRAINING"); f.Metadata()["resume_token"] != w.token {
		t.Errorf("metadata %v, want the token %s", f.Metadata(), w.token)
	}
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestAWatchFromWhatIsNoLongerKeptIsToldWhereItCanGoOn(t *testing.T) {
	t.Parallel()
	opts := sqlstore.Options{Dir: t.TempDir()}
	h, stop := serveStore(t, opts, clock.System())
	begin := watch(t, admin(h), "", "").token
	for n := range 5 {
		create(t, admin(h), request(n))
	}
	stop()
	opts.Retention = eventlog.Retention{MaxEvents: 2} // looked after once the store runs
	h, _ = serveStore(t, opts, clock.System())
	c := admin(h)
	var err error
	for err == nil {
		err = received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{ResumeToken: begin}))
	}
	f := kittest.WantFault(t, err, codes.OutOfRange, "RESUME_TOKEN_TOO_OLD")
	if f.Domain() != fault.Domain {
		t.Errorf("the domain is %q", f.Domain())
	}
	watch(t, c, "", f.Metadata()["oldest_resume_token"]).want("CREATED 3 matches", "CREATED 4 matches")
}

// lines is a log that says when it has a line with a word in it.
type lines struct {
	word string
	seen chan string // holds a line
}

// Write implements io.Writer; it is called with one line.
func (l *lines) Write(line []byte) (int, error) {
	if strings.Contains(string(line), l.word) {
		select {
		case l.seen <- string(line):
		default:
		}
	}
	return len(line), nil
}

func TestAWatchThatDoesNotKeepUpIsCutAndGoesOnWithoutGapOrDuplicate(t *testing.T) {
	t.Parallel()
	ends := &lines{word: "CONSUMER_TOO_SLOW", seen: make(chan string, 1)}
	c := admin(start(t, func(o *kittest.Options) { o.Logger = slog.New(slog.NewJSONHandler(ends, nil)) }))
	const n = 6000 // more than the buffer of a watch and those of a connection
	last := watch(t, c, `display_name = "Last"`, "")
	slow := watch(t, c, "", "")
	rows := requests(0, n)
	rows[n-1].DisplayName = "Last"
	if resp := importAll(t, c, rows); resp.GetCreatedCount() != n {
		t.Fatalf("%d were made", resp.GetCreatedCount())
	}
	last.next() // so all before it were handed out
	select {
	case line := <-ends.seen: // the call is over, and nobody has read anything of it
		if !strings.Contains(line, "WatchUsers") {
			t.Errorf("what ended is %s", line)
		}
	case <-time.After(time.Minute):
		t.Fatal("a watch whose buffer is full goes on")
	}
	var told []string
	read := func(w *watcher) error {
		for len(told) < n {
			msg, err := w.stream.Recv()
			if err != nil {
				return err
			}
			w.token = msg.GetResumeToken()
			if e := msg.GetEvent(); e != nil {
				told = append(told, e.GetUserId())
			}
		}
		return nil
	}
	f := kittest.WantFault(t, read(slow), codes.ResourceExhausted, "CONSUMER_TOO_SLOW")
	if f.Domain() != fault.Domain || f.Metadata()["resume_token"] != slow.token {
		t.Errorf("domain %q, metadata %v; the last token was %s", f.Domain(), f.Metadata(), slow.token)
	}
	if len(told) == 0 || len(told) >= n {
		t.Fatalf("it was told of %d before it was cut", len(told))
	}
	if err := read(watch(t, c, "", f.Metadata()["resume_token"])); err != nil {
		t.Fatal(err)
	}
	for i, id := range told {
		if id != rows[i].GetUserId() {
			t.Fatalf("event %d is of %s, want %s", i, id, rows[i].GetUserId())
		}
	}
}
