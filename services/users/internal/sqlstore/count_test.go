package sqlstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// TestUsersWhoStandTogetherDoNotSpeakForMany has users that match side by side, as those of one import are: the places of the sample
// that meet them are full of them, and say nothing of others.
func TestUsersWhoStandTogetherDoNotSpeakForMany(t *testing.T) {
	for name, options := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := running(t, options(t))
			const all, together = 2000, 400
			for from := 0; from < all; from += together {
				batch := make([]users.Draft, together)
				for i := range batch {
					batch[i] = person(from + i)
					batch[i].User.Verified = from == 0
				}
				if _, err := s.Create(t.Context(), batch, users.Commit); err != nil {
					t.Fatal(err)
				}
			}
			for range 20 {
				var g guess
				err := s.db.Read(t.Context(), func(q sqldb.Querier) (err error) {
					g, err = s.estimate(t.Context(), q, users.Selection{Filter: users.Verified{}})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				if g.users < together/4 || g.users > 4*together {
					t.Errorf("about %d users are estimated, of %d", g.users, together)
				}
				if g.surely <= 0 || g.surely > together/4 {
					t.Errorf("%d users stand in %.0f places", together, g.surely)
				}
			}
			c, err := s.Count(t.Context(), users.Selection{Filter: users.Verified{}})
			if err != nil || c != (users.Count{N: together}) {
				t.Errorf("counted %+v, %v", c, err)
			}
		})
	}
}

func TestAnEstimateIsGoodForTenSecondsAndNotManyAreKept(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := newEstimates(func() time.Time { return now }, [32]byte{})
	about := users.Count{N: 12_345, Estimated: true}
	e.keep("one", about)
	now = now.Add(10*time.Second - time.Microsecond)
	if c, ok := e.find("one"); !ok || c != about {
		t.Errorf("after less than ten seconds: %+v, %t", c, ok)
	}
	if c, ok := e.find("another"); ok {
		t.Errorf("of another selection: %+v", c)
	}
	e.keep("later", about)
	now = now.Add(time.Microsecond)
	if c, ok := e.find("one"); ok {
		t.Errorf("after ten seconds: %+v", c)
	}
	for i := range maxEstimates - 1 { // and one more than are kept: those that are no good make room
		e.keep(fmt.Sprint(i), about)
	}
	if c, ok := e.find("later"); !ok || c != about {
		t.Errorf("one that was good was let go of for one that was not: %+v, %t", c, ok)
	}
	e.keep("too many", about)
	if c, ok := e.find("too many"); !ok || c != about || len(e.counts) > maxEstimates {
		t.Errorf("%d are kept; the newest is %+v, %t", len(e.counts), c, ok)
	}
}
