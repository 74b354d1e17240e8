package users

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/histogram"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// How pages are asked for: a walk is the first page of a query, which counts, and those that follow.
const (
	pageSize = 50
	walk     = 20 // pages
)

// query is a listing that an index serves.
type query struct {
	name  string
	order string
	// filter returns one of the filters of this kind for the first count users, who were made from one moment to another.
	filter func(count int, from, to time.Time) string
}

// queries are one for each index.
func queries() []query {
	same := func(filter string) func(int, time.Time, time.Time) string {
		return func(int, time.Time, time.Time) string { return filter }
	}
	letters := func() string { return fmt.Sprintf("%c%c", 'A'+rand.IntN(26), 'a'+rand.IntN(26)) }
	return []query{
		{"everyone", "", same("")},
		{"state = DISABLED", "", same("state = DISABLED")},
		{`labels.plan = "pro", one in 10`, "", same(fmt.Sprintf("labels.plan = %q", planPro))},
		{`labels.plan = "rare", one in 1,000`, "", same(fmt.Sprintf("labels.plan = %q", planRare))},
		{`email = "3f*", one in 256`, "email", func(int, time.Time, time.Time) string {
			return fmt.Sprintf("email = \"%02x*\"", rand.IntN(256))
		}},
		{"a tenth of the time, by created_at", "created_at desc", func(_ int, from, to time.Time) string {
			tenth := to.Sub(from) / 10
			begin := from.Add(rand.N(9*tenth + 1))
			return fmt.Sprintf("created_at >= %q AND created_at < %q", stamp(begin), stamp(begin.Add(tenth)))
		}},
		{"everyone by display_name", "display_name", same("")},
		{`display_name = "Ab*", one in 676`, "display_name", func(int, time.Time, time.Time) string {
			return fmt.Sprintf("display_name = \"%s*\"", letters())
		}},
	}
}

func stamp(t time.Time) string { return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) }

// shelf is a service that is listed, and what its users are like.
type shelf struct {
	client   usersv1.UserServiceClient
	count    int
	from, to time.Time // when the first and the last user were made
}

// one in so many users is disabled before the listings.
const oneInDisabled = 500

// list measures pages of many users beside pages of few, turn by turn, one at a time.
func (r *run) list(ctx context.Context, p *pair) ([]figure.Figure, error) {
	few, err := r.shelf(ctx, p.small, r.small)
	if err != nil {
		return nil, err
	}
	many, err := r.shelf(ctx, p.large, r.large)
	if err != nil {
		return nil, err
	}
	all := queries()
	type result struct{ few, many, middle []float64 } // ms, of each round
	results := make([]result, len(all))
	p.profiled.begin(ctx, p.large, "list", 10*time.Second)
	for range r.rounds {
		for i, q := range all {
			var took [2]histogram.Histogram
			for range r.walks {
				for n, s := range []*shelf{few, many} {
					if err := s.walk(ctx, q, &took[n]); err != nil {
						return nil, fmt.Errorf("list %s: %w", q.name, err)
					}
				}
			}
			res := &results[i]
			res.few, res.many = append(res.few, milliseconds(took[0].Quantile(0.99))), append(res.many, milliseconds(took[1].Quantile(0.99)))
			res.middle = append(res.middle, milliseconds(took[1].Quantile(0.5)))
		}
	}
	rows := [][]string{{"", fmt.Sprintf("p99 ms of %d", r.small), fmt.Sprintf("p99 ms of %d", r.large), "p50 ms of those"}}
	median := func(values []float64) float64 { return figure.Median("", values).Value }
	slowest := make([]float64, r.rounds) // of the many, in each round
	growth := make([]float64, r.rounds)
	for i, q := range all {
		res := results[i]
		rows = append(rows, []string{
			q.name, fmt.Sprintf("%.2f", median(res.few)), fmt.Sprintf("%.2f", median(res.many)), fmt.Sprintf("%.2f", median(res.middle)),
		})
		if i == 0 || median(res.many) > median(slowest) {
			slowest = res.many
		}
	}
	for round := range growth {
		few, many := 0.0, 0.0
		for _, res := range results {
			few, many = max(few, res.few[round]), max(many, res.many[round])
		}
		growth[round] = many / few
	}
	r.out.Table(fmt.Sprintf("%s: ListUsers, pages of %d, %d walks of %d pages, medians of %d rounds", p.engine, pageSize, r.walks, walk, r.rounds), rows)
	return []figure.Figure{
		figure.Median("users."+p.engine+"_list_p99", slowest), figure.Median("users."+p.engine+"_list_growth", growth),
	}, nil
}

// shelf connects to a service and disables some of its users.
func (r *run) shelf(ctx context.Context, s *service.Process, count int) (*shelf, error) {
	conn, err := r.dial(s)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	sh := &shelf{client: usersv1.NewUserServiceClient(conn), count: count}
	for n := 3; n < count; n += oneInDisabled {
		_, err := sh.client.DisableUser(ctx, &usersv1.DisableUserRequest{UserId: personID(n), RequestId: uuid.NewString()})
		if err != nil {
			return nil, fmt.Errorf("disable a user: %w", err)
		}
	}
	for n, at := range map[int]*time.Time{0: &sh.from, count - 1: &sh.to} {
		u, err := sh.client.GetUser(ctx, &usersv1.GetUserRequest{UserId: personID(n)})
		if err != nil {
			return nil, err
		}
		*at = u.GetUser().GetCreatedAt().AsTime()
	}
	return sh, nil
}

// walk asks for the pages of one listing and records how long each took.
func (s *shelf) walk(ctx context.Context, q query, took *histogram.Histogram) error {
	req := &usersv1.ListUsersRequest{PageSize: pageSize, OrderBy: q.order, Filter: q.filter(s.count, s.from, s.to)}
	for range walk {
		began := time.Now()
		page, err := s.client.ListUsers(ctx, req)
		if err != nil {
			return err
		}
		took.Record(time.Since(began))
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	return nil
}
