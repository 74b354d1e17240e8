package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

const (
	// crowd is how many users there are, of heft bytes or more each.
	crowd = 10_000
	heft  = 5_000
	// mostHeld is how many bytes more than before may be in use at any moment: less than half of what the users are by
	// themselves.
	mostHeld = 24 << 20
)

// heavy returns the n-th request of about heft bytes, with the widest characters that there are.
func heavy(n int) *usersv1.CreateUserRequest {
	wide := func(characters int) string { return strings.Repeat("\U00010400", characters) }
	r := request(n)
	r.DisplayName, r.FirstName, r.LastName = fmt.Sprint(n, wide(80)), wide(100), wide(100)
	r.Address = &usersv1.Address{CountryCode: "CH", Lines: []string{wide(200), wide(200), wide(200), wide(200), wide(200)}}
	return r
}

// patient is timeout for what takes long where all else is busy, too.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*callTimeout)
	t.Cleanup(cancel)
	return ctx
}

// memory says how much more is in use than when it was made.
type memory struct {
	t      *testing.T
	before uint64
	most   int64
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func measure(t *testing.T) *memory { return &memory{t: t, before: inUse()} }

// look takes note of what is in use now.
func (m *memory) look() { m.most = max(m.most, int64(inUse())-int64(m.before)) }

// wantBounded fails the test if more was held than may be, or if all that went through could have been held as well.
func (m *memory) wantBounded(what string, through int) {
	m.t.Helper()
	m.t.Logf("%s: of %d MB that went through %.1f MB were in use at most", what, through/1e6, float64(m.most)/1e6)
	if through < 2*mostHeld {
		m.t.Errorf("%s: %d bytes went through, which prove nothing", what, through)
	}
	if m.most > mostHeld {
		m.t.Errorf("%s: %d bytes more were in use, of %d that went through", what, m.most, through)
	}
}

// The test is not parallel, so that what is in use is its own: all that are parallel wait for it.
func TestMemoryDoesNotGrowWithTheUsersThatGoThrough(t *testing.T) {
	c := admin(start(t))
	create(t, c, request(crowd)) // what is made once is made
	const every = 500

	m, through := measure(t), 0
	stream := begin(patient(t), t, c)
	for n := range crowd {
		r := &usersv1.CreateUsersRequest{User: heavy(n)}
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		through += proto.Size(r)
		if n%every == 0 {
			m.look()
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil || resp.GetCreatedCount() != crowd || resp.GetFailedCount() != 0 {
		t.Fatalf("imported %d, %d failed, %v", resp.GetCreatedCount(), resp.GetFailedCount(), err)
	}
	m.look()
	m.wantBounded("an import", through)
	if through < crowd*heft {
		t.Errorf("%d users are %d bytes", crowd, through)
	}

	// Rows that all fail: of each there is something to say.
	m, through = measure(t), 0
	stream = begin(patient(t), t, c)
	for n := range crowd {
		r := &usersv1.CreateUsersRequest{User: heavy(n)}
		r.User.RequestId, r.User.UserId = requestID(n), "" // the email is taken
		if err := stream.Send(r); err != nil {
			break // the answer says why
		}
		through += proto.Size(r)
		if n%every == 0 {
			m.look()
		}
	}
	if resp, err := stream.CloseAndRecv(); err != nil || resp.GetFailedCount() == 0 || resp.GetCreatedCount() != 0 {
		t.Errorf("of taken emails: %d made, %d failed, %v", resp.GetCreatedCount(), resp.GetFailedCount(), err)
	}
	m.look()
	m.wantBounded("an import that fails", through)

	m, through = measure(t), 0
	users, err := c.StreamUsers(patient(t), &usersv1.StreamUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		resp, err := users.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		through += proto.Size(resp)
		if n%every == 0 {
			m.look()
		}
	}
	if n != crowd+1 {
		t.Errorf("%d users were streamed, want %d", n, crowd+1)
	}
	m.wantBounded("a stream", through)

	m, through = measure(t), 0
	listed := 0
	for req := (&usersv1.ListUsersRequest{PageSize: 1000, OrderBy: "display_name"}); ; {
		resp, err := c.ListUsers(patient(t), req)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(resp.GetUsers())
		through += proto.Size(resp)
		m.look()
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if listed != crowd+1 {
		t.Errorf("%d users were listed, want %d", listed, crowd+1)
	}
	m.wantBounded("a list", through)
}
