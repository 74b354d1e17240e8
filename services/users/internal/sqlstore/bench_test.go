package sqlstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// person returns the n-th user of the benchmarks: one in ten has the plan pro, one in a thousand the plan rare.
func person(n int) users.Draft {
	random := rand.New(rand.NewPCG(7, uint64(n)))
	d := newDraft(n)
	d.User.Email.Text = fmt.Sprintf("%08x.person.%d@example.com", random.Uint32(), n)
	d.User.Email.Key = d.User.Email.Text
	d.User.DisplayName = fmt.Sprintf("%c%c%c Person %d", 'A'+random.IntN(26), 'a'+random.IntN(26), 'a'+random.IntN(26), n)
	d.Claim.RequestID = fmt.Sprintf("%08x-0000-4000-8000-%012x", random.Uint32(), n)
	switch {
	case n%1000 == 7:
		d.User.Labels = map[string]string{"plan": "rare"}
	case n%10 == 0:
		d.User.Labels = map[string]string{"plan": "pro"}
	}
	if n%500 == 3 {
		d.User.State = users.Disabled
	}
	return d
}

// fill makes users from the first number to the last.
func fill(t testing.TB, s *Store, from, to int) {
	t.Helper()
	for ; from < to; from += 1000 {
		batch := make([]users.Draft, 0, 1000)
		for n := from; n < min(from+1000, to); n++ {
			batch = append(batch, person(n))
		}
		if _, err := s.Create(t.Context(), batch, users.Commit); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	for name, options := range engines {
		for _, size := range []int{1, 500} {
			b.Run(fmt.Sprintf("%s/batch of %d", name, size), func(b *testing.B) {
				s, _ := running(b, options(b))
				n := 0
				b.ResetTimer()
				for range b.N {
					batch := make([]users.Draft, size)
					for j := range batch {
						batch[j] = person(n)
						n++
					}
					if _, err := s.Create(b.Context(), batch, users.Commit); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "users/s")
			})
		}
	}
}

// BenchmarkList reports the time of pages of 50 and of the first count, from a small store to a large one: -bench List -benchtime 1x.
func BenchmarkList(b *testing.B) {
	label := func(value string) users.Filter {
		return users.Compare{Field: users.FieldLabel, Label: "plan", Text: value}
	}
	selections := []struct {
		name string
		by   users.OrderBy
		f    users.Filter
	}{
		{"all", users.ByCreatedAt, nil},
		{"all by name", users.ByDisplayName, nil},
		{"all by email", users.ByEmail, nil},
		{"label pro", users.ByCreatedAt, label("pro")},
		{"label rare", users.ByCreatedAt, label("rare")},
		{"label rare by name", users.ByDisplayName, label("rare")},
		{"disabled", users.ByCreatedAt, users.Compare{Field: users.FieldState, Text: string(users.Disabled)}},
		{"name prefix", users.ByDisplayName, users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: "Ab"}},
		{"name prefix by time", users.ByCreatedAt, users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: "Abc"}},
		{"email", users.ByCreatedAt, users.Compare{Field: users.FieldEmail, Text: person(77).User.Email.Key}},
		{"without an index", users.ByCreatedAt, users.Compare{Field: users.FieldFirstName, Text: "Nobody"}},
	}
	for name, options := range engines {
		s, _ := running(b, options(b))
		made := 0
		for _, size := range []int{10_000, 100_000, 1_000_000} {
			if testing.Short() && size > 100_000 {
				break
			}
			run := func(what string, f func(b *testing.B)) { b.Run(fmt.Sprintf("%s/%d/%s", name, size, what), f) }
			run("import", func(b *testing.B) {
				began := time.Now()
				fill(b, s, made, size)
				b.ReportMetric(float64(size-made)/time.Since(began).Seconds(), "users/s")
			})
			made = size
			for _, sel := range selections {
				run(sel.name, func(b *testing.B) {
					pages, counting := measure(b, s, users.Query{Selection: users.Selection{Filter: sel.f}, Order: users.Order{By: sel.by}, Limit: 50})
					b.ReportMetric(float64(pages[len(pages)/2].Microseconds()), "p50-µs")
					b.ReportMetric(float64(pages[len(pages)*99/100].Microseconds()), "p99-µs")
					b.ReportMetric(float64(counting.Microseconds()), "count-µs")
				})
			}
			run("snapshot", func(b *testing.B) {
				began, n := time.Now(), 0
				if err := s.Snapshot(b.Context(), users.Selection{}, func(users.User) error { n++; return nil }); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(n)/time.Since(began).Seconds(), "users/s")
			})
		}
	}
}

// measure reads pages one after the other, and counts once.
func measure(b *testing.B, s *Store, q users.Query) (pages []time.Duration, counting time.Duration) {
	b.Helper()
	for range 500 {
		began := time.Now()
		page, err := s.List(context.Background(), q)
		if err != nil {
			b.Fatal(err)
		}
		pages = append(pages, time.Since(began))
		q.After = page.Next
	}
	began := time.Now()
	if _, err := s.Count(context.Background(), q.Selection); err != nil {
		b.Fatal(err)
	}
	counting = time.Since(began)
	slices.Sort(pages)
	return pages, counting
}

// BenchmarkGet reads users at random, in as many goroutines as there are processors: -bench Get.
func BenchmarkGet(b *testing.B) {
	const count = 100_000
	for name, options := range engines {
		b.Run(name, func(b *testing.B) {
			s, _ := running(b, options(b))
			fill(b, s, 0, count)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
				defer cancel()
				for pb.Next() {
					if _, err := s.Get(ctx, newDraft(rand.IntN(count)).User.ID); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
