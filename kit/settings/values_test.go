package settings_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/settings"
)

func TestASecretDoesNotPrint(t *testing.T) {
	const value = "hunter2"
	secret := settings.Secret(value)
	held := struct {
		Key  settings.Secret
		Keys []settings.Secret
		Ptr  *settings.Secret
	}{secret, []settings.Secret{secret}, &secret}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10s"} {
		fmt.Fprintf(&out, verb+" "+verb+"\n", secret, held)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "secret", secret, "held", held)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "secret", secret, "held", held)
	if err := json.NewEncoder(&out).Encode(map[string]any{"held": held, "secret": secret}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %v", secret), secret.String())

	for _, form := range []string{value, fmt.Sprintf("%x", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is in:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), "[secret]") {
		t.Errorf("nothing marks the secret:\n%s", out.String())
	}
	if secret.Reveal() != value {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

func TestWhatIsAnAddress(t *testing.T) {
	for _, row := range []struct {
		text     string
		ok       bool
		loopback bool
	}{
		{"127.0.0.1:50051", true, true},
		{"127.8.9.1:0", true, true},
		{"localhost:65535", true, true},
		{"[::1]:1", true, true},
		{"[::ffff:127.0.0.1]:1", true, true},
		{":8080", true, false},
		{"0.0.0.0:8080", true, false},
		{"[::]:8080", true, false},
		{"example.com:443", true, false},
		{"", true, false},
		{"8080", false, false},
		{"localhost", false, false},
		{"localhost:", false, false},
		{"localhost:http", false, false},
		{"localhost:65536", false, false},
		{"localhost:-1", false, false},
		{"::1:80", false, false},
	} {
		t.Run(row.text, func(t *testing.T) {
			var a settings.Address
			err := a.UnmarshalText([]byte(row.text))
			if (err == nil) != row.ok {
				t.Fatalf("UnmarshalText = %v", err)
			}
			if err == nil && (a.String() != row.text || a.Loopback() != row.loopback) {
				t.Errorf("String() = %q, Loopback() = %v, want %v", a, a.Loopback(), row.loopback)
			}
		})
	}
}
