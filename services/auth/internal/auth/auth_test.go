package auth_test

import (
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func TestEveryFaultIsValidAndUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range auth.Faults() {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		if seen[f.Reason()] {
			t.Errorf("%s is there twice", f.Reason())
		}
		seen[f.Reason()] = true
	}
}

func TestAServiceNamesAllThatItLacks(t *testing.T) {
	_, err := auth.New(auth.Deps{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"Store", "Profiles", "Passwords", "AccessTokens", "Clock", "NewID", "Random"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %q", name, err)
		}
	}
}
