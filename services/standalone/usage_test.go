package main_test

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/concordat-dev/concordat/kit/usage"
)

func TestOneProcessTellsWhoFillsInWhichField(t *testing.T) {
	s := run(t, t.TempDir(), "--usage-sample=1")
	p := at(t, s.grpc)
	p.signUp(t, "ada@example.com", request1, "")
	p.signIn(t, "ada@example.com")
	if _, err := p.charge("k1", 1999); err != nil {
		t.Fatal(err)
	}
	body := scrape(t, s.find(`^ +admin +(http://\S+)`)[1]+"/usage")
	var got usage.Snapshot
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Service != "standalone" || got.SampledOneIn != 1 || got.Dropped != 0 || got.Truncated != 0 {
		t.Errorf("%s of one in %d, %d dropped, %d truncated", got.Service, got.SampledOneIn, got.Dropped, got.Truncated)
	}
	for _, want := range []usage.Entry{
		{Caller: "gateway", Method: "/payments.v1.PaymentService/Charge", Direction: usage.Request, Path: "amount_cents", Message: "payments.v1.ChargeRequest", Field: "amount_cents"},
		{Caller: "gateway", Method: "/auth.v1.SessionService/SignIn", Direction: usage.Request, Path: "password", Message: "auth.v1.SignInRequest", Field: "password"},
		{Caller: "payments", Method: "/auth.v1.AuthService/GetUser", Direction: usage.Request, Path: "user_id", Message: "auth.v1.GetUserRequest", Field: "user_id"},
		{Caller: "payments", Method: "/auth.v1.AuthService/GetUser", Direction: usage.Response, Path: "active", Message: "auth.v1.GetUserResponse", Field: "active"},
		{Caller: "auth", Method: "/users.v1.UserService/CreateUser", Direction: usage.Response, Path: "user.email", Message: "users.v1.User", Field: "email"},
	} {
		if !slices.ContainsFunc(got.Entries, func(e usage.Entry) bool {
			seen := e.Count > 0 && !e.LastSeen.IsZero()
			e.Count, e.LastSeen = want.Count, want.LastSeen
			return seen && e == want
		}) {
			t.Errorf("there is no %+v among %d entries", want, len(got.Entries))
		}
	}
	for _, value := range []string{"ada@example.com", p.id, "1999"} {
		if strings.Contains(body, value) {
			t.Errorf("%s is in %s", value, body)
		}
	}
	if code := s.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
