package sqlstore

import (
	"context"
	"database/sql"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// planner is a Querier that notes how each statement is run.
type planner struct {
	sqldb.Querier
	t      *testing.T
	engine sqldb.Engine
	plans  []string
}

func (p *planner) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p.explain(ctx, query, args)
	return p.Querier.QueryContext(ctx, query, args...)
}

func (p *planner) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	p.explain(ctx, query, args)
	return p.Querier.QueryRowContext(ctx, query, args...)
}

// explain notes the plan of a statement, one line for each.
func (p *planner) explain(ctx context.Context, query string, args []any) {
	p.t.Helper()
	rows, err := p.Querier.QueryContext(ctx, p.engine.Pick("EXPLAIN QUERY PLAN ", "EXPLAIN (COSTS OFF) ")+query, args...)
	if err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		dest := []any{&id, &parent, &unused, &step}
		if p.engine == sqldb.PostgreSQL {
			dest = dest[3:]
		}
		if err := rows.Scan(dest...); err != nil {
			p.t.Fatal(err)
		}
		steps = append(steps, strings.TrimSpace(step))
	}
	if err := rows.Err(); err != nil {
		p.t.Fatal(err)
	}
	p.plans = append(p.plans, strings.Join(steps, "; "))
}

// A page is found by an index however many users there are: no table is read from its beginning, and what is sorted is few. A
// count of what an index knows reads nothing else.
func TestPagesAndCountsAreReadByAnIndex(t *testing.T) {
	text := func(f users.Field, op users.Op, text string) users.Filter {
		return users.Compare{Field: f, Op: op, Text: text}
	}
	pro := users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}
	late := users.Compare{Field: users.FieldCreatedAt, Op: users.GreaterOrEqual, Time: person(19_600).User.CreatedAt}
	rows := []struct {
		name  string
		f     users.Filter
		order users.Order
		index string // of the last statement of the page
		count string // of a statement of the count, where an index is enough
	}{
		{"everyone", nil, users.Order{}, "users_created", "users_"},
		{"everyone, newest first", nil, users.Order{Desc: true}, "users_created", ""},
		{"everyone by change", nil, users.Order{By: users.ByUpdatedAt}, "users_updated", ""},
		{"everyone by name", nil, users.Order{By: users.ByDisplayName, Desc: true}, "users_display_name", ""},
		{"everyone by email", nil, users.Order{By: users.ByEmail}, "users_email_key", ""},
		{"a label", pro, users.Order{}, "user_labels", "user_labels"},
		{"a label, newest first", pro, users.Order{Desc: true}, "user_labels", ""},
		{"a label by name", pro, users.Order{By: users.ByDisplayName}, "users_display_name", ""},
		{"a rare label by name", users.Compare{Field: users.FieldLabel, Label: "plan", Text: "rare"}, users.Order{By: users.ByDisplayName}, "few", "user_labels"},
		{"a state", text(users.FieldState, users.Equal, "DISABLED"), users.Order{}, "users_state", "users_state"},
		{"a state by email", text(users.FieldState, users.Equal, "DISABLED"), users.Order{By: users.ByEmail}, "few", ""},
		{"a name", text(users.FieldDisplayName, users.Prefix, "Ab"), users.Order{By: users.ByDisplayName}, "users_display_name", "users_display_name"},
		{"a name by time", text(users.FieldDisplayName, users.Prefix, "Ab"), users.Order{}, "few", ""},
		{"some emails", text(users.FieldEmail, users.Prefix, "a"), users.Order{By: users.ByEmail}, "users_email_key", "users_"},
		{"an email", text(users.FieldEmail, users.Equal, person(5).User.Email.Key), users.Order{}, "few", ""},
		{"one of two emails", users.Or{text(users.FieldEmail, users.Equal, "a"), text(users.FieldEmail, users.Equal, "b")}, users.Order{}, "few", ""},
		{"an id", text(users.FieldID, users.Equal, string(person(5).User.ID)), users.Order{}, "few", ""},
		{"lately", late, users.Order{}, "users_created", "users_created"},
		{"lately by change", late, users.Order{By: users.ByUpdatedAt}, "few", "users_created"},
	}
	onEach(t, func(t *testing.T, opts Options) {
		s, _ := running(t, opts)
		fillLabelled(t, s, 0, 1000)
		analyze(t, s, opts)
		fillLabelled(t, s, 1000, 20_000)
		for _, row := range rows {
			// What PostgreSQL believes is of the time of the first thousand.
			t.Run(row.name+", with old statistics", func(t *testing.T) { wantPages(t, s, users.Selection{Filter: row.f}, row.order, row.index) })
		}
		analyze(t, s, opts)
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				wantPages(t, s, users.Selection{Filter: row.f}, row.order, row.index)
				c := s.explained(t, func(ctx context.Context, q sqldb.Querier) error {
					_, _, err := s.count(ctx, q, users.Selection{Filter: row.f})
					return err
				})
				if row.count != "" && !coveredBy(c.plans[0], row.count) {
					t.Errorf("the count is read by %q, want the index %s alone", c.plans[0], row.count)
				}
			})
		}
	})
}

// wantPages checks how the first two pages are read.
func wantPages(t *testing.T, s *Store, sel users.Selection, order users.Order, index string) {
	t.Helper()
	p := s.explained(t, func(ctx context.Context, q sqldb.Querier) error {
		p, err := s.pager(ctx, q, sel, order)
		if err != nil {
			return err
		}
		page, err := p.page(ctx, users.Position{}, 50, maxExamined)
		if err != nil || page.Next.Zero() {
			return err
		}
		_, err = p.page(ctx, page.Next, 50, maxExamined)
		return err
	})
	wantIndexed(t, p.plans)
	if last := p.plans[len(p.plans)-1]; !strings.Contains(last, index) && !(index == "user_labels" && strings.Contains(last, primary)) {
		t.Errorf("the page is read by %q, want %s", last, index)
	}
}

// explained returns the plans of the statements of f.
func (s *Store) explained(t *testing.T, f func(context.Context, sqldb.Querier) error) *planner {
	t.Helper()
	p := &planner{t: t, engine: s.db.Engine()}
	err := s.db.Read(t.Context(), func(q sqldb.Querier) error {
		p.Querier = q
		return f(t.Context(), p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fillLabelled is fill for users who all have one more label.
func fillLabelled(t *testing.T, s *Store, from, to int) {
	t.Helper()
	for ; from < to; from += 1000 {
		batch := make([]users.Draft, 1000)
		for i := range batch {
			batch[i] = person(from + i)
			labels := map[string]string{"team": strconv.Itoa(i % 7)}
			maps.Copy(labels, batch[i].User.Labels)
			batch[i].User.Labels = labels
		}
		if _, err := s.Create(t.Context(), batch, users.Commit); err != nil {
			t.Fatal(err)
		}
	}
}

// analyze has PostgreSQL learn what the tables hold, as it does by itself after a while.
func analyze(t *testing.T, s *Store, opts Options) {
	t.Helper()
	if s.db.Engine() != sqldb.PostgreSQL {
		return
	}
	conn, err := pgx.Connect(t.Context(), string(opts.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "VACUUM ANALYZE"); err != nil {
		t.Fatal(err)
	}
}

// scanned is a step that reads a whole table or index.
var scanned = regexp.MustCompile(`Seq Scan|SCAN (u|l|i)\b`)

// gathered is what may be sorted: what was gathered before, and is few.
var gathered = regexp.MustCompile(`few|alternatives`)

func wantIndexed(t *testing.T, plans []string) {
	t.Helper()
	for i, plan := range plans {
		// The first page begins at the end of an index, which SQLite calls a scan.
		if scanned.MatchString(plan) && (i > 1 || !strings.Contains(plan, "SCAN u USING")) {
			t.Errorf("the plan %q reads a whole table", plan)
		}
		if sorts := strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "Sort"); sorts && !gathered.MatchString(plan) {
			t.Errorf("the plan %q sorts what was not gathered", plan)
		}
	}
}

// primary is how SQLite calls the index of user_labels, which is the table.
const primary = "USING PRIMARY KEY"

// coveredBy says whether a plan reads an index and no rows of the table.
func coveredBy(plan, index string) bool {
	for _, way := range []string{"COVERING INDEX " + index, "Index Only Scan using " + index, "Index Only Scan Backward using " + index} {
		if strings.Contains(plan, way) {
			return true
		}
	}
	return index == "user_labels" && strings.Contains(plan, primary)
}
