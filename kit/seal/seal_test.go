package seal_test

import (
	"errors"
	"testing"

	"github.com/concordat-dev/concordat/kit/seal"
)

func TestASealOpensOnlyUnderItsScopeAndUnchanged(t *testing.T) {
	s := seal.New([]byte("0123456789abcdef"))
	text := s.Seal("ListUsers/user:1", []byte("cursor"))
	if got, err := s.Open("ListUsers/user:1", text); err != nil || string(got) != "cursor" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	if _, err := s.Open("ListUsers/user:2", text); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("another scope: err = %v, want ErrBroken", err)
	}
	if _, err := seal.New([]byte("another key 0123")).Open("ListUsers/user:1", text); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("another key: err = %v, want ErrBroken", err)
	}
	for i := range len(text) {
		for bit := range 8 {
			b := []byte(text)
			b[i] ^= 1 << bit
			if _, err := s.Open("ListUsers/user:1", string(b)); !errors.Is(err, seal.ErrBroken) {
				t.Fatalf("byte %d, bit %d flipped: err = %v, want ErrBroken", i, bit, err)
			}
		}
	}
}
