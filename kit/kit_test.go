package kit

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/settings"
)

type testConfig struct {
	Port int `help:"A number." default:"1"`
	Common
}

func TestAProcessEndsWithACodeAndOneLineThatSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		args    []string
		environ []string
		err     error
		code    int
		want    string // on standard error
	}{
		"a stop that was asked for": {nil, nil, nil, 0, ""},
		"help":                      {[]string{"--help"}, nil, errors.New("never run"), 0, ""},
		"a failure":                 {nil, nil, errors.New("the disk is gone"), 1, "users: the disk is gone\n"},
		"a setting that is no number": {
			[]string{"--port=x"}, nil, errors.New("never run"), 2, "--port",
		},
		"a bound that lets nobody in": {[]string{"--connections-per-address=0"}, nil, errors.New("never run"), 2, "--connections-per-address"},
		"a bound that is no number":   {nil, []string{"CONCORDAT_USERS_CONNECTIONS_PER_ADDRESS=few"}, errors.New("never run"), 2, "CONCORDAT_USERS_CONNECTIONS_PER_ADDRESS"},
		"no bound":                    {[]string{"--connections-per-address=-1"}, nil, nil, 0, ""},
		"no bound, by a variable":     {nil, []string{"CONCORDAT_USERS_CONNECTIONS_PER_ADDRESS=-1"}, nil, 0, ""},
		"an unknown variable":         {nil, []string{"CONCORDAT_USERS_PROT=2"}, errors.New("never run"), 2, "CONCORDAT_USERS_PROT"},
		"half of a certificate": {
			[]string{"--tls-cert=a.pem"}, nil, errors.New("never run"), 2, "--tls-cert",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			run := func(context.Context, testConfig, Deps) error { return tc.err }
			code := start(t.Context(), settings.Program{Name: "users", Description: "A test."}, run, tc.args, tc.environ, &stdout, &stderr)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if got := stderr.String(); !strings.Contains(got, tc.want) || strings.Count(got, "\n") > 1 || (tc.want == "" && got != "") {
				t.Errorf("standard error: %q, want one line with %q", got, tc.want)
			}
		})
	}
}
