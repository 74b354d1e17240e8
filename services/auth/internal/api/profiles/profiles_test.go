package profiles_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/services/auth/internal/api/profiles"
	"github.com/concordat-dev/concordat/services/auth/internal/api/userstest"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

const (
	ann = "0197a000-0000-7000-8000-00000000000a"
	bob = "0197a000-0000-7000-8000-00000000000b"
)

func ada() auth.Profile {
	return auth.Profile{UserID: ann, Email: "Ada@example.com", DisplayName: "Ada"}
}

func start(t *testing.T) (*userstest.Server, profiles.Profiles) {
	t.Helper()
	users := userstest.Start(t, t.TempDir())
	return users, dial(t, users, users.Target())
}

func dial(t *testing.T, users *userstest.Server, target string) profiles.Profiles {
	t.Helper()
	conn, err := profiles.Dial(target, users.Identity("auth"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return profiles.New(conn)
}

func TestAProfileIsMadeOnce(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	for range 2 {
		if err := p.Create(t.Context(), ada()); err != nil {
			t.Fatal(err)
		}
	}
	all := users.Users()
	if u := all[ann]; len(all) != 1 || u.GetEmail() != "Ada@example.com" || u.GetDisplayName() != "Ada" {
		t.Errorf("users %v", all)
	}
}

func TestAnEmailThatIsTaken(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	users.Add(&usersv1.User{UserId: bob, Email: "ada@EXAMPLE.com"})
	if err := p.Create(t.Context(), ada()); !errors.Is(err, auth.ErrEmailTaken) || grpcfault.Public(err, "auth.v1").Domain() != "auth.v1" {
		t.Errorf("got %v", err)
	}
}

func TestAProfileThatIsRefusedForGood(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		spoil func(*testing.T, *userstest.Server, profiles.Profiles, *auth.Profile)
	}{
		{"an id that is somebody else's", func(_ *testing.T, users *userstest.Server, _ profiles.Profiles, _ *auth.Profile) {
			users.Add(&usersv1.User{UserId: ann, Email: "other@example.com"})
		}},
		{"an id that was given to another profile by us", func(t *testing.T, _ *userstest.Server, p profiles.Profiles, a *auth.Profile) {
			if err := p.Create(t.Context(), *a); err != nil {
				t.Fatal(err)
			}
			a.DisplayName = "Eve"
		}},
		{"a profile that breaks the rules", func(_ *testing.T, _ *userstest.Server, _ profiles.Profiles, a *auth.Profile) { a.DisplayName = "\x00" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			users, p := start(t)
			profile := ada()
			row.spoil(t, users, p, &profile)
			err := p.Create(t.Context(), profile)
			if !errors.Is(err, auth.ErrProfileRefused) || fault.KindOf(err) != fault.Internal {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnEmailThatUsersDoesNotTakeIsTheCallersToMend(t *testing.T) {
	t.Parallel()
	_, p := start(t)
	profile := ada()
	profile.Email = "a..da@example.com" // which is one by the rule of SignUp
	err := p.Create(t.Context(), profile)
	if !errors.Is(err, auth.ErrProfileRefused) {
		t.Errorf("got %v", err)
	}
	f := grpcfault.Public(err, "auth.v1")
	if v := f.Violations(); f.Kind() != fault.InvalidArgument || f.Reason() != "INVALID_REQUEST" || len(v) != 1 || v[0].Field != "email" || v[0].Rule != "email.syntax" {
		t.Errorf("the caller is told %v: %+v", f, v)
	}
}

func TestWhatThereIsOfAUser(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	at := time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)
	for id, row := range map[string]struct {
		user *usersv1.User
		want auth.ProfileState
	}{
		"0197a000-0000-7000-8000-000000000001": {&usersv1.User{State: usersv1.UserState_USER_STATE_ACTIVE}, auth.ProfileActive},
		"0197a000-0000-7000-8000-000000000002": {&usersv1.User{State: usersv1.UserState_USER_STATE_DISABLED}, auth.ProfileDisabled},
		"0197a000-0000-7000-8000-000000000003": {&usersv1.User{State: usersv1.UserState_USER_STATE_DELETED}, auth.ProfileDeleted},
		"0197a000-0000-7000-8000-000000000004": {&usersv1.User{State: usersv1.UserState_USER_STATE_DELETED, ErasedAt: timestamppb.Now()}, auth.ProfileErased},
		"0197a000-0000-7000-8000-000000000005": {&usersv1.User{State: 99}, auth.ProfileDisabled},
	} {
		row.user.UserId, row.user.Email, row.user.UpdatedAt = id, "a@example.com", timestamppb.New(at)
		users.Add(row.user)
		want := auth.KnownProfile{UserID: auth.UserID(id), Email: "a@example.com", State: row.want, At: at}
		if got, err := p.Find(t.Context(), auth.UserID(id)); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := p.Find(t.Context(), ann); !errors.Is(err, auth.ErrNoRecord) {
		t.Errorf("nobody: %v", err)
	}
	ids := []auth.UserID{"0197a000-0000-7000-8000-000000000001", ann, "0197a000-0000-7000-8000-000000000003"}
	all, err := p.FindAll(t.Context(), ids)
	if err != nil || len(all) != 2 || all[0].UserID != ids[0] || all[1].UserID != ids[2] || all[1].State != auth.ProfileDeleted {
		t.Errorf("of three: %+v, %v", all, err)
	}
}

func TestTheChangesOfProfilesThatMeanSomethingToAccounts(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	users.Add(&usersv1.User{UserId: ann, Email: "ann@example.com"})
	stream, err := p.Changes().Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	change, begin, err := stream.Next(t.Context())
	if err != nil || change != nil || begin == "" {
		t.Fatalf("where it stands: %+v, %q, %v", change, begin, err)
	}
	for what, want := range map[usersv1.UserEventType]*auth.ProfileChange{
		usersv1.UserEventType_USER_EVENT_TYPE_CREATED:  nil,
		usersv1.UserEventType_USER_EVENT_TYPE_UPDATED:  {Moved: false},
		usersv1.UserEventType_USER_EVENT_TYPE_DISABLED: {Moved: true},
		usersv1.UserEventType_USER_EVENT_TYPE_ENABLED:  {Moved: true},
		usersv1.UserEventType_USER_EVENT_TYPE_ERASED:   {Moved: true},
	} {
		users.Change(ann, what, func(u *usersv1.User) { u.State = usersv1.UserState_USER_STATE_DELETED })
		change, token, err := stream.Next(t.Context())
		if err != nil || token == "" || (change == nil) != (want == nil) {
			t.Fatalf("%s: got %+v, %q, %v", what, change, token, err)
		}
		if want != nil && (change.Moved != want.Moved || change.UserID != ann || change.State != auth.ProfileDeleted || change.At.IsZero()) {
			t.Errorf("%s: got %+v", what, change)
		}
	}
	users.Forget()
	if stream, err = p.Changes().Open(t.Context(), begin); err == nil {
		_, _, err = stream.Next(t.Context())
	}
	if !errors.Is(err, eventlog.ErrTooOld) {
		t.Errorf("from what is forgotten: %v", err)
	}
}

// each runs every call and returns their errors.
func each(ctx context.Context, p profiles.Profiles) map[string]error {
	_, err := p.Find(ctx, ann)
	_, all := p.FindAll(ctx, []auth.UserID{ann})
	return map[string]error{"create": p.Create(ctx, ada()), "find": err, "find all": all}
}

func TestUsersThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	check := func(what string, p profiles.Profiles) {
		t.Helper()
		for call, err := range each(t.Context(), p) {
			f := grpcfault.Public(err, "auth.v1")
			if !errors.Is(err, auth.ErrUpstreamUnavailable) || f.Domain() != "policy.v1" || f.Metadata()["upstream"] != "users" {
				t.Errorf("%s: %s: got %v", what, call, err)
			}
		}
	}
	for what, err := range map[string]error{
		"unavailable":     userstest.ErrDown,
		"out of time":     fault.New(fault.DeadlineExceeded, "DEADLINE_EXCEEDED", "the call ran out of time"),
		"overloaded":      fault.New(fault.ResourceExhausted, "RATE_LIMITED", "too many calls"),
		"between changes": fault.New(fault.Aborted, "CONFLICT", "again"),
	} {
		users.Answer(func(context.Context) error { return err })
		check(what, p)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	check("not there", dial(t, users, "dns:///"+listener.Addr().String()))
}

func TestAnAnswerThatIsAboutUsIsAnErrorOfOurs(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	for what, err := range map[string]error{
		"broken":    errors.New("broken"),
		"forbidden": fault.New(fault.PermissionDenied, "CALLER_REFUSED", "the method is not for this caller").WithDomain("policy.v1"),
		"unknown":   fault.New(fault.Unimplemented, "UNIMPLEMENTED", "there is no such method").WithDomain("policy.v1"),
	} {
		users.Answer(func(context.Context) error { return err })
		for call, err := range each(t.Context(), p) {
			if f := grpcfault.Public(err, "auth.v1"); f.Kind() != fault.Internal || errors.Is(err, auth.ErrProfileRefused) {
				t.Errorf("%s: %s: got %v", what, call, err)
			}
		}
	}
}

func TestACallerWhoIsOutOfTimeIsToldSo(t *testing.T) {
	t.Parallel()
	users, p := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	users.Answer(func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	for call, err := range each(ctx, p) {
		if fault.KindOf(err) != fault.Canceled {
			t.Errorf("%s: got %v", call, err)
		}
	}
}
