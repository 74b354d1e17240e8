package app_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What the settings say of events, the running service keeps to: here from its second start on.
func TestTheServiceKeepsAsManyEventsAsItsSettingsSay(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	a, stop := run(t, cfg)
	c := call(t, a, cfg, "auth")
	watch, err := c.WatchUsers(within(t), &usersv1.WatchUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	begin, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"7d9a0000-0000-4000-8000-000000000001", "7d9a0000-0000-4000-8000-000000000002"} {
		req := ada()
		req.RequestId, req.Email = id, id+"@example.com"
		if _, err := c.CreateUser(within(t), req); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	resume := func(c usersv1.UserServiceClient) error {
		watch, err := c.WatchUsers(within(t), &usersv1.WatchUsersRequest{ResumeToken: begin.GetResumeToken()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = watch.Recv()
		return err
	}
	a, stop = run(t, cfg)
	if err := resume(call(t, a, cfg, "auth")); err != nil {
		t.Errorf("all are kept, and a watch from the beginning ends with %v", err)
	}
	stop()
	cfg.EventLimit = 1
	a, _ = run(t, cfg)
	c = call(t, a, cfg, "auth")
	for end := time.Now().Add(patience); ; {
		if err = resume(c); err != nil || time.Now().After(end) {
			break
		}
	}
	kittest.WantFault(t, err, codes.OutOfRange, "RESUME_TOKEN_TOO_OLD")
}
