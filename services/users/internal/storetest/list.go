package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func pagesOfEverySize(t *testing.T, b Backend) {
	const n = 23
	all := drafts(0, n)
	// Some were made in the same microsecond: their ids decide.
	for i := range all {
		at := epoch.Add(time.Duration(i/4) * time.Microsecond)
		all[i].User.CreatedAt, all[i].User.UpdatedAt = at, at
	}
	want := make([]users.User, n)
	for i, d := range all {
		want[i] = d.User
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	create(t, b.Store, all...)
	for size := 1; size <= n+1; size++ {
		if got := list(t, b.Store, size); !equal(got, want) {
			t.Errorf("pages of %d: got %s, want %s", size, show(got), show(want))
		}
	}
	last := listPage(t, b.Store, want[n-2].Position(), 1)
	if last.More || len(last.Users) != 1 || last.Total != n {
		t.Errorf("the last page has %d users of %d, more: %t", len(last.Users), last.Total, last.More)
	}
	if end := listPage(t, b.Store, want[n-1].Position(), 1); end.More || len(end.Users) != 0 {
		t.Errorf("after the last user there are %d users, more: %t", len(end.Users), end.More)
	}
}

func stableUnderChurn(t *testing.T, b Backend) {
	// The even ones are there from the first page on; between two pages odd ones come, before and after the place of the listing.
	const n = 60
	var even, odd []users.Draft
	for i, d := range drafts(0, n) {
		if i%2 == 0 {
			even = append(even, d)
		} else {
			odd = append(odd, d)
		}
	}
	create(t, b.Store, even...)
	random := rand.New(rand.NewPCG(3, 4))
	random.Shuffle(len(odd), func(i, j int) { odd[i], odd[j] = odd[j], odd[i] })

	seen := make(map[users.ID]int)
	var after users.Position
	for size := 1; ; size = size%4 + 1 {
		page := listPage(t, b.Store, after, size)
		for _, u := range page.Users {
			seen[u.ID]++
		}
		if !page.More {
			break
		}
		after = page.Users[len(page.Users)-1].Position()
		if len(odd) > 0 {
			create(t, b.Store, odd[0])
			odd = odd[1:]
		}
	}
	for _, d := range even {
		if seen[d.User.ID] != 1 {
			t.Errorf("user %s was listed %d times", d.User.ID, seen[d.User.ID])
		}
	}
	for id, times := range seen {
		if times > 1 {
			t.Errorf("user %s was listed %d times", id, times)
		}
	}
}

func lateClock(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(1, 5)...)
	page := listPage(t, b.Store, users.Position{}, 2)
	late := draft(9)
	late.User.CreatedAt = epoch.Add(-time.Hour)
	late.User.UpdatedAt = late.User.CreatedAt
	create(t, b.Store, late)
	rest := listPage(t, b.Store, page.Users[1].Position(), 10)
	if got := append(page.Users, rest.Users...); !equal(got, made) {
		t.Errorf("listed %s, want %s", show(got), show(made))
	}
	if rest.Total != 5 {
		t.Errorf("the total is %d, want 5", rest.Total)
	}
}

func emptyPage(t *testing.T, b Backend) {
	page := listPage(t, b.Store, users.Position{}, 1)
	if len(page.Users) != 0 || page.More || page.Total != 0 {
		t.Errorf("got %+v, want an empty page", page)
	}
}

func scanShowsBeginning(t *testing.T, b Backend) {
	// More than a store would read at once, so that it comes back for more while others are made.
	const n, batch = 2500, 500
	var want []users.User
	for from := 0; from < n; from += batch {
		want = append(want, create(t, b.Store, drafts(from, from+batch)...)...)
	}
	random := rand.New(rand.NewPCG(5, 6))
	var got []users.User
	err := b.Store.Scan(t.Context(), func(u users.User) error {
		got = append(got, u)
		if len(got)%250 == 1 {
			// The scan holds nothing that keeps its reader from the store.
			later := draft(n + len(got))
			at := epoch.Add(time.Duration(random.IntN(2*n)) * time.Millisecond) // before and after where the scan is
			later.User.CreatedAt, later.User.UpdatedAt = at, at
			create(t, b.Store, later)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !equal(got, want) {
		t.Errorf("scanned %s, want %s", show(got), show(want))
	}
	if total := listPage(t, b.Store, users.Position{}, 1).Total; total != n+10 {
		t.Errorf("the total is %d, want %d: nobody was made during the scan", total, n+10)
	}
}

func scanOfNobody(t *testing.T, b Backend) {
	if got := scan(t, b.Store); len(got) != 0 {
		t.Errorf("scanned %s, want nobody", show(got))
	}
}

func scanEndsWithReader(t *testing.T, b Backend) {
	create(t, b.Store, drafts(0, 5)...)
	enough := errors.New("enough")
	count := 0
	err := b.Store.Scan(t.Context(), func(users.User) error {
		if count++; count == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || count != 3 {
		t.Errorf("got %v after %d users, want the reader's error after 3", err, count)
	}
}

func scanEndsWithContext(t *testing.T, b Backend) {
	for from := 0; from < 2000; from += 500 {
		create(t, b.Store, drafts(from, from+500)...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	count := 0
	err := b.Store.Scan(ctx, func(users.User) error {
		if count++; count == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || count != 10 {
		t.Errorf("got %v after %d users, want that the scan was canceled after 10", err, count)
	}
}
