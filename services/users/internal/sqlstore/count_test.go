package sqlstore

import (
	"testing"

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
