package api

import (
	"errors"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/seal"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func TestAPlaceComesBackFromItsToken(t *testing.T) {
	s := &Server{pages: seal.New(make([]byte, 32))}
	when := time.Date(1969, 3, 1, 9, 30, 0, 123456000, time.UTC)
	for _, row := range []struct {
		order users.Order
		place place
	}{
		{users.Order{}, place{after: users.Position{Time: when, ID: "a"}, count: users.Count{N: 3}}},
		{users.Order{By: users.ByUpdatedAt, Desc: true}, place{after: users.Position{Time: when, ID: "a"}, count: users.Count{N: 12_345, Estimated: true}}},
		{users.Order{By: users.ByDisplayName}, place{after: users.Position{Text: "\u00fc\nx", ID: "0195f000-0000-7000-8000-000000000001"}}},
		{users.Order{By: users.ByEmail}, place{after: users.Position{Text: "", ID: "a"}}},
	} {
		got, err := s.openPage("scope", s.sealPage("scope", row.place), row.order)
		if err != nil || got != row.place {
			t.Errorf("%+v: %+v, %v", row.place, got, err)
		}
	}
}

// FuzzPageToken looks for a text that opens without having been sealed, and for a sealed content that breaks the reader.
func FuzzPageToken(f *testing.F) {
	s := &Server{pages: seal.New(make([]byte, 32))}
	other := &Server{pages: seal.New([]byte("another key of sixteen bytes"))}
	token := s.sealPage("scope", place{after: users.Position{Text: "x", ID: "0195f000-0000-7000-8000-000000000001"}})
	for _, seed := range []string{"", "x", token, token[:len(token)-1], token + "A", other.sealPage("scope", place{}), "\x02", "\x02\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\xff", "\x020\xe000000000000\x000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := s.openPage("another scope", text, users.Order{})
		if text != "" && !errors.Is(err, ErrPageToken) {
			t.Fatalf("%q opens: %+v, %v", text, got, err)
		}
		for _, by := range []users.OrderBy{users.ByCreatedAt, users.ByEmail} {
			order := users.Order{By: by}
			got, err := s.openPage("scope", s.pages.Seal("scope", []byte(text)), order)
			if err != nil {
				if !errors.Is(err, ErrPageToken) {
					t.Fatalf("%q: %v", text, err)
				}
				continue
			}
			if again, err := s.openPage("scope", s.sealPage("scope", got), order); err != nil || again != got {
				t.Fatalf("%q means %+v, which is sealed as %+v, %v", text, got, again, err)
			}
		}
	})
}
