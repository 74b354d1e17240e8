package app_test

import (
	"io"
	"testing"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/settings/settingstest"
	auth "github.com/concordat-dev/concordat/services/auth/app"
	gateway "github.com/concordat-dev/concordat/services/gateway/app"
	payments "github.com/concordat-dev/concordat/services/payments/app"
	"github.com/concordat-dev/concordat/services/standalone/app"
	users "github.com/concordat-dev/concordat/services/users/app"
)

var program = settings.Program{Name: app.Name, Description: "x", Shared: true}

func TestTheSampleOfSettingsNamesWhatTheCodeKnowsAndNothingElse(t *testing.T) {
	known := func(p settings.Program, cfg any) []string {
		t.Helper()
		names, err := settings.KnownNames(p, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	settingstest.CheckSample(t, "../../../deploy/concordat.env",
		known(program, &app.Config{}),
		known(settings.Program{Name: auth.Name, Description: "x"}, &auth.Config{}),
		known(settings.Program{Name: users.Name, Description: "x"}, &users.Config{}),
		known(settings.Program{Name: payments.Name, Description: "x"}, &payments.Config{}),
		known(settings.Program{Name: kit.Edge, Description: "x"}, &gateway.Config{}),
	)
}

// TestServicesFindEachOtherByTheirDefaults holds the defaults of the services against each other: each is where the others
// look for it.
func TestServicesFindEachOtherByTheirDefaults(t *testing.T) {
	var cfg app.Config
	if err := settings.Parse(program, &cfg, nil, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	at := map[string]string{
		"auth": cfg.Auth.Listen.String(), "users": cfg.Users.Listen.String(), "payments": cfg.Payments.Listen.String(),
	}
	for _, tc := range []struct{ who, whom, target string }{
		{"auth", "users", cfg.Auth.Users}, {"users", "auth", cfg.Users.Auth}, {"payments", "auth", cfg.Payments.Auth},
		{"gateway", "auth", cfg.Gateway.Auth}, {"gateway", "users", cfg.Gateway.Users}, {"gateway", "payments", cfg.Gateway.Payments},
	} {
		if want := "dns:///" + at[tc.whom]; tc.target != want {
			t.Errorf("%s looks for %s at %s, which is at %s", tc.who, tc.whom, tc.target, want)
		}
	}
}
