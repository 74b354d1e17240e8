package grpcfault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

func TestAFaultArrivesAsWhatItWas(t *testing.T) {
	sent := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "another user has the email").
		With("hint", "sign in").WithViolation("user.email", "unique", "is taken").WithRetryAfter(3 * time.Second).
		Because(errors.New("UNIQUE constraint failed: users.email"))
	wire := grpcfault.Status(fmt.Errorf("create user: %w", sent), "users.v1")
	b, err := proto.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "UNIQUE") || strings.Contains(string(b), "create user") {
		t.Errorf("the wire carries the cause: %q", b)
	}
	got := grpcfault.FromError(status.FromProto(wire).Err())
	if !errors.Is(got, fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "").WithDomain("users.v1")) {
		t.Errorf("got %v %s %s", got.Kind(), got.Domain(), got.Reason())
	}
	if v := got.Violations(); len(v) != 1 || v[0].Field != "user.email" || v[0].Rule != "unique" {
		t.Errorf("violations = %v", v)
	}
	if got.RetryAfter() != 3*time.Second || got.Metadata()["hint"] != "sign in" {
		t.Errorf("retry %v metadata %v", got.RetryAfter(), got.Metadata())
	}
}

func TestWhatIsNotAFaultOfTheServiceIsHidden(t *testing.T) {
	secret := "SELECT password FROM accounts"
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"a plain error":                      {errors.New(secret), codes.Internal},
		"an internal fault":                  {fault.New(fault.Internal, "BROKEN", secret), codes.Internal},
		"a status of a peer":                 {status.Error(codes.NotFound, secret), codes.Internal},
		"a fault of another service":         {fault.New(fault.NotFound, "X_NOT_FOUND", secret).WithDomain("other.v1"), codes.Internal},
		"a deadline, with what ran out":      {fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), codes.DeadlineExceeded},
		"a caller that left, with the place": {fmt.Errorf("%s: %w", secret, context.Canceled), codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			st := grpcfault.Status(tc.err, "users.v1")
			if codes.Code(st.GetCode()) != tc.code {
				t.Errorf("code = %v, want %v", codes.Code(st.GetCode()), tc.code)
			}
			if strings.Contains(st.String(), secret) {
				t.Errorf("the text leaves: %v", st)
			}
		})
	}
}

func TestEachKindHasACodeOfItsOwn(t *testing.T) {
	seen := map[codes.Code]fault.Kind{}
	for k := fault.Internal; k <= fault.DataLoss; k++ {
		c := grpcfault.Code(k)
		if other, dup := seen[c]; dup {
			t.Errorf("%v and %v are both %v", k, other, c)
		}
		seen[c] = k
		if k == fault.Internal {
			continue
		}
		if got := grpcfault.FromStatus(status.New(c, "x").Proto()); got.Kind() != k || got.Valid() != nil {
			t.Errorf("%v comes back as %v (%v)", k, got.Kind(), got.Valid())
		}
	}
}
