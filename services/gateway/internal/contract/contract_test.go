package contract

import (
	"slices"
	"testing"
)

func TestEveryMethodHasAServiceBehindIt(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]struct {
		upstream      string
		open, streams bool
	}{
		"/auth.v1.SessionService/SignUp":                {Auth, true, false},
		"/auth.v1.KeyService/GetJwks":                   {Auth, true, false},
		"/auth.v1.AuthService/GetUser":                  {Auth, false, false},
		"/auth.v1.AuthService/WatchUserEvents":          {Auth, true, true},
		"/users.v1.UserService/CreateUsers":             {Users, true, true},
		"/payments.v1.PaymentService/Charge":            {Payments, true, false},
		"/payments.v1.PaymentService/ProcessCharges":    {Payments, true, true},
		"/payments.v1.PaymentService/WatchTransactions": {Payments, true, true},
	} {
		m := c.Method(method)
		if m == nil || m.Upstream != want.upstream || m.Open() != want.open || m.Streams() != want.streams {
			t.Errorf("%s: %+v, want %+v", method, m, want)
		}
	}
	for _, name := range []string{"", "/", "payments.v1.PaymentService/Charge", "/payments.v1.PaymentService/charge", "/grpc.health.v1.Health/Check"} {
		if m := c.Method(name); m != nil {
			t.Errorf("%q is a method: %+v", name, m)
		}
	}
	if scopes := c.Scopes(); !slices.Contains(scopes, "payments.write") || !slices.Contains(scopes, "payments.admin") || !slices.IsSorted(scopes) {
		t.Errorf("scopes: %v", scopes)
	}
	n := 0
	for _, u := range c.Upstreams() {
		for _, s := range u.Services {
			n += s.Methods().Len()
		}
	}
	if n != len(c.Methods()) || n == 0 {
		t.Errorf("%d methods, of which %d have a service", len(c.Methods()), n)
	}
}

func TestAMethodIsOpenWhereTheEdgeIsLetIn(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	policy := *c.Method("/payments.v1.PaymentService/Charge").Method
	for name, test := range map[string]struct {
		callers []string
		open    bool
	}{
		"no callers are named":     {nil, true},
		"the gateway is named":     {[]string{"orders", "gateway"}, true},
		"the gateway is not named": {[]string{"orders"}, false},
	} {
		policy.Callers = test.callers
		if got := (&Method{Method: &policy}).Open(); got != test.open {
			t.Errorf("%s: %t", name, got)
		}
	}
}
