package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

const (
	// sampled is about how many rows an estimate looks at. On SQLite they are taken from so many places, spread evenly: what follows a
	// row is read with it, and what is far away costs a page.
	sampled       = 1000
	sampledPlaces = 100
	// maxScanned is about how many users there are at most where a count that no index serves looks at all of them.
	maxScanned = 1_000_000
	// surelyMany is an estimate that no fewer than CountExactly users have, so that nobody needs to count them. It takes each place of
	// a sample for one user, however many match there: users who match may stand together, such as those of one import, and a few
	// places would speak for thousands. If no more than CountExactly match, h places with a match are expected where four times h were
	// found, and places are drawn apart from each other: of a million users, where h is 10, the odds are below 1 in 10^11 (Chernoff).
	surelyMany = 4 * users.CountExactly
	// estimateFor is how long an estimate is good for.
	estimateFor = 10 * time.Second
	// maxEstimates is how many estimates are remembered.
	maxEstimates = 256
)

// Count returns how many users a selection has; see users.Store.
//
// It counts by an index where the filter names one, else it looks at all users unless a sample says that surely too many match. That
// takes 1.5 s for a million of them on SQLite and reads all that the store has, so it is done one at a time, and not at all where there
// are more: then it estimates, however few match.
func (s *Store) Count(ctx context.Context, sel users.Selection) (users.Count, error) {
	st := s.statement().selection(sel)
	key := fmt.Sprintf("%s %q", st, st.args)
	if c, ok := s.estimates.find(key); ok {
		return c, nil
	}
	var c users.Count
	var open bool
	err := s.db.Read(ctx, func(q sqldb.Querier) (err error) {
		c, open, err = s.count(ctx, q, sel)
		return err
	})
	looked := true
	if err == nil && open {
		c, looked, err = s.countAll(ctx, sel, c)
	}
	if err != nil {
		return users.Count{}, fmt.Errorf("count users: %w", err)
	}
	if c.Estimated && looked {
		s.estimates.keep(key, c)
	}
	return c, nil
}

// count counts by an index or estimates. It says whether the estimate is open: all users may be looked at to know.
func (s *Store) count(ctx context.Context, q sqldb.Querier, sel users.Selection) (c users.Count, open bool, err error) {
	parts := conjuncts(sel.Filter)
	ways := sources(parts, nil)
	if len(parts) == 0 {
		ways = []source{everyone()}
	}
	least := 0 // what is known to match
	probes := 0
	for _, way := range ways {
		if len(way.parts) == len(parts) && way.counted != nil {
			n, all, err := s.countEntries(ctx, q, way, sel.ShowDeleted)
			if err != nil || all && n <= users.CountExactly {
				return users.Count{N: n}, false, err
			}
			least = max(least, n)
			continue
		}
		if probes++; probes > maxProbes {
			break
		}
		n, err := s.probe(ctx, q, way, users.CountExactly+1)
		if err != nil {
			return users.Count{}, false, err
		}
		if n <= users.CountExactly {
			rest := users.Selection{Filter: without(parts, way.parts), ShowDeleted: sel.ShowDeleted}
			n, err = s.countRows(ctx, q, rest, func(st *statement) { way.with(st, users.CountExactly).write("SELECT count(*)").usersOf("few") })
			return users.Count{N: n}, false, err
		}
	}
	e, err := s.estimate(ctx, q, sel)
	open = least == 0 && e.surely < surelyMany && e.rows <= maxScanned
	return users.Count{N: max(e.users, least), Estimated: true}, open, err
}

// countAll looks at all users, up to one more than are counted exactly; it returns the estimate if they are more, or if others are being
// counted for as long as half of the time that the call has: then nobody has looked.
func (s *Store) countAll(ctx context.Context, sel users.Selection, estimated users.Count) (c users.Count, looked bool, err error) {
	var patience <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.After(time.Until(deadline) / 2)
	}
	select {
	case s.scanning <- struct{}{}:
		defer func() { <-s.scanning }()
	case <-patience:
		return estimated, false, nil
	case <-ctx.Done():
		return users.Count{}, false, ctx.Err()
	}
	var n int
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		st := s.statement().write("SELECT count(*) FROM (SELECT 1 FROM users u WHERE ").selection(sel)
		st.write(" LIMIT ").number(users.CountExactly + 1).write(") AS entries")
		return q.QueryRowContext(ctx, st.String(), st.args...).Scan(&n)
	})
	if err != nil || n <= users.CountExactly {
		return users.Count{N: n}, true, err
	}
	return users.Count{N: max(n, estimated.N), Estimated: true}, true, nil
}

// everyone is the way to count all users.
func everyone() source {
	return source{counted: func(st *statement, showDeleted bool) {
		st.write(" FROM users u").indexedBy("users_created").write(" WHERE u.erased_at IS NULL")
		st.listed("u.", showDeleted)
	}}
}

// countEntries counts the entries of an index up to one more than are counted exactly, and says whether these are all.
func (s *Store) countEntries(ctx context.Context, q sqldb.Querier, way source, showDeleted bool) (n int, all bool, err error) {
	off := 0
	if !showDeleted && way.deleted != nil && s.db.Engine() == sqldb.SQLite {
		st := s.statement().write("SELECT count(*)")
		way.deleted(st)
		if err := q.QueryRowContext(ctx, st.String(), st.args...).Scan(&off); err != nil {
			return 0, false, err
		}
		showDeleted = true
	}
	st := s.statement().write("SELECT count(*) FROM (SELECT 1")
	way.counted(st, showDeleted)
	st.write(" LIMIT ").number(users.CountExactly + 1 + off).write(") AS entries")
	err = q.QueryRowContext(ctx, st.String(), st.args...).Scan(&n)
	n -= off
	return n, n <= users.CountExactly, err
}

// countRows counts the users of a selection among those that a beginning names.
func (s *Store) countRows(ctx context.Context, q sqldb.Querier, sel users.Selection, begin func(*statement)) (n int, err error) {
	st := s.statement()
	begin(st)
	st.selection(sel)
	err = q.QueryRowContext(ctx, st.String(), st.args...).Scan(&n)
	return n, err
}

// guess is what a sample says of a selection.
type guess struct {
	users  int     // about how many it has: the share of the sample, of all rows
	surely float64 // about how many it had if in each place of the sample one matched at most
	rows   float64 // about how many there are
}

// estimate takes a sample.
func (s *Store) estimate(ctx context.Context, q sqldb.Querier, sel users.Selection) (guess, error) {
	rows, sample, err := s.sample(ctx, q)
	if err != nil {
		return guess{}, err
	}
	st := s.statement().write("SELECT count(*), coalesce(sum(hit), 0), count(DISTINCT CASE WHEN hit = 1 THEN place END) FROM (SELECT CASE WHEN ")
	st.selection(sel).write(" THEN 1 ELSE 0 END AS hit, ")
	st.write(s.db.Engine().Pick("picked.value", "split_part(u.ctid::text, ',', 1)")).write(" AS place") // on PostgreSQL its page
	sample(st)
	st.write(") AS sample")
	var looked, match, places int64
	if err := q.QueryRowContext(ctx, st.String(), st.args...).Scan(&looked, &match, &places); err != nil {
		return guess{}, err
	}
	g := guess{rows: rows, surely: rows * float64(places) / sampled}
	if looked > 0 {
		g.users = int(math.Round(rows * float64(match) / float64(looked)))
	}
	return g, nil
}

// sample returns how many rows users has, with those who were erased, and what takes a sample of them.
func (s *Store) sample(ctx context.Context, q sqldb.Querier) (rows float64, from func(*statement), err error) {
	if s.db.Engine() == sqldb.PostgreSQL {
		// What the last analysis found, for the size that the table has now.
		err := q.QueryRowContext(ctx, `
SELECT CASE WHEN relpages > 0 AND reltuples > 0 THEN reltuples / relpages ELSE 20 END * pg_relation_size(oid) / current_setting('block_size')::int
FROM pg_class WHERE oid = 'users'::regclass`).Scan(&rows)
		return rows, func(st *statement) {
			st.write(" FROM users u TABLESAMPLE SYSTEM (").arg(min(100, 100*sampled/max(rows, 1))).write(")")
		}, err
	}
	// No row is ever removed, so the numbers of the rows have no gaps.
	var last int64
	if err := q.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM users`).Scan(&last); err != nil {
		return 0, nil, err
	}
	const each = sampled / sampledPlaces
	picked := make([]int64, 0, sampledPlaces)
	for i := range int64(sampledPlaces) {
		low, high := last*i/sampledPlaces, last*(i+1)/sampledPlaces
		if high > low {
			picked = append(picked, 1+low+s.estimates.pick(max(1, high-low-each)))
		}
	}
	list, err := json.Marshal(picked)
	return float64(last), func(st *statement) {
		st.write(" FROM json_each(").arg(string(list)).write(") AS picked CROSS JOIN users u WHERE u.seq >= picked.value AND u.seq < picked.value + ")
		st.number(each)
	}, err
}

// estimates remembers estimates for a while, because the first page of every listing asks.
type estimates struct {
	now func() time.Time

	mu     sync.Mutex
	random *rand.Rand
	counts map[string]estimate
}

type estimate struct {
	count users.Count
	until time.Time
}

func newEstimates(now func() time.Time, seed [32]byte) *estimates {
	return &estimates{now: now, random: rand.New(rand.NewChaCha8(seed)), counts: make(map[string]estimate)}
}

// pick returns a random number from 0 up to n, which is not 0.
func (e *estimates) pick(n int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.random.Int64N(n)
}

func (e *estimates) find(key string) (users.Count, bool) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.counts[key]
	return found.count, ok && now.Before(found.until)
}

func (e *estimates) keep(key string, c users.Count) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.counts) >= maxEstimates {
		for other, found := range e.counts {
			if !now.Before(found.until) {
				delete(e.counts, other)
			}
		}
		if len(e.counts) >= maxEstimates {
			clear(e.counts)
		}
	}
	e.counts[key] = estimate{c, now.Add(estimateFor)}
}
