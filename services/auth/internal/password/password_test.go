package password_test

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/password"
)

// cheap keeps tests fast; only the size of the work differs.
func cheap() password.Params { return password.Params{MemoryKiB: 64, Passes: 1, Lanes: 1} }

func newHasher(t *testing.T, p password.Params) *password.Argon2id {
	t.Helper()
	return newHasherWith(t, p, password.Waiting)
}

func newHasherWith(t *testing.T, p password.Params, waiting int) *password.Argon2id {
	t.Helper()
	h, err := password.New(p, waiting, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHashNamesItsParametersAndHasASaltOfItsOwn(t *testing.T) {
	h := newHasher(t, password.Recommended())
	first, err := h.Hash(t.Context(), "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Hash(t.Context(), "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash is %q", first)
	}
	if first == second {
		t.Error("two hashes of one password are equal")
	}
}

func TestVerify(t *testing.T) {
	h := newHasher(t, cheap())
	hash, err := h.Hash(t.Context(), "right")
	if err != nil {
		t.Fatal(err)
	}
	// Made by the reference implementation: argon2 somesalt… -id -t 2 -k 65536 -p 1 -l 32.
	const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, row := range []struct {
		name     string
		password string
		hash     string
		want     auth.Verdict
	}{
		{"the right password matches", "right", hash, auth.Verdict{Match: true}},
		{"a wrong password does not match", "wrong", hash, auth.Verdict{}},
		{"an empty password does not match", "", hash, auth.Verdict{}},
		{"an empty hash matches nothing", "right", "", auth.Verdict{}},
		{"a hash of the reference implementation matches and is outdated", "password", reference, auth.Verdict{Match: true, Outdated: true}},
		{"an outdated hash says nothing to a wrong password", "Password", reference, auth.Verdict{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := h.Verify(t.Context(), row.password, row.hash)
			if err != nil || got != row.want {
				t.Errorf("got %+v, %v, want %+v", got, err, row.want)
			}
		})
	}
}

func TestAHashWithOtherParametersIsOutdated(t *testing.T) {
	old, err := newHasher(t, password.Params{MemoryKiB: 32, Passes: 1, Lanes: 1}).Hash(t.Context(), "right")
	if err != nil {
		t.Fatal(err)
	}
	got, err := newHasher(t, cheap()).Verify(t.Context(), "right", old)
	if want := (auth.Verdict{Match: true, Outdated: true}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestADamagedHashIsAnErrorThatDoesNotShowIt(t *testing.T) {
	h := newHasher(t, cheap())
	good, err := h.Hash(t.Context(), "right")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, hash string }{
		{"plain text is refused", "canary"},
		{"another algorithm is refused", strings.Replace(good, "argon2id", "argon2i", 1)},
		{"another version is refused", strings.Replace(good, "v=19", "v=16", 1)},
		{"a missing part is refused", good[:strings.LastIndex(good, "$")]},
		{"more memory than a machine has is refused", strings.Replace(good, "m=64", "m=4294967295", 1)},
		{"no passes are refused", strings.Replace(good, "t=1", "t=0", 1)},
		{"text behind the parameters is refused", strings.Replace(good, "p=1", "p=1,x=2", 1)},
		{"a short sum is refused", good[:strings.LastIndex(good, "$")] + "$AAAA"},
		{"a sum that is not base64 is refused", good + "!"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := h.Verify(t.Context(), "right", row.hash); err == nil || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestParametersOutOfRangeAreRefused(t *testing.T) {
	for _, p := range []password.Params{{}, {MemoryKiB: 64, Passes: 1}, {MemoryKiB: 64, Lanes: 1}, {MemoryKiB: 7, Passes: 1, Lanes: 1}} {
		if _, err := password.New(p, password.Waiting, rand.Reader); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func TestAnEndedContextIsNotMadeToWait(t *testing.T) {
	h := newHasher(t, cheap())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("hash: got %v", err)
	}
	if _, err := h.Verify(ctx, "x", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: got %v", err)
	}
}

func TestWhoeverWaitsForATurnLeavesWithItsContext(t *testing.T) {
	// Far more callers than turns, with work long enough that the last ones cannot have had theirs.
	h := newHasherWith(t, password.Params{MemoryKiB: 64 * 1024, Passes: 3, Lanes: 1}, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	gaveUp := 0
	for _, err := range verifyAtOnce(ctx, h, 64*runtime.GOMAXPROCS(0)) {
		if errors.Is(err, context.DeadlineExceeded) {
			gaveUp++
		} else if err != nil {
			t.Errorf("got %v", err)
		}
	}
	if gaveUp == 0 {
		t.Error("nobody gave up: the callers were not made to wait")
	}
}

func TestWhenTooManyWaitTheNextIsSentAwayAtOnce(t *testing.T) {
	h := newHasherWith(t, password.Params{MemoryKiB: 64 * 1024, Passes: 1, Lanes: 1}, 0)
	served, sentAway := 0, 0
	for _, err := range verifyAtOnce(t.Context(), h, 64*runtime.GOMAXPROCS(0)) {
		switch {
		case err == nil:
			served++
		case errors.Is(err, password.ErrBusy):
			sentAway++
		default:
			t.Errorf("got %v", err)
		}
	}
	if served == 0 || sentAway == 0 {
		t.Errorf("%d were served and %d sent away, want some of each", served, sentAway)
	}
	if _, err := h.Verify(t.Context(), "x", ""); err != nil {
		t.Errorf("once they have all gone: %v", err)
	}
}

// verifyAtOnce returns how that many callers fared who came at once.
func verifyAtOnce(ctx context.Context, h *password.Argon2id, callers int) []error {
	results := make([]error, callers)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { _, results[i] = h.Verify(ctx, "x", "") })
	}
	wg.Wait()
	return results
}
