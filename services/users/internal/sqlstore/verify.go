package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// ErrCorrupt: what the store has is not what it must be.
var ErrCorrupt = errors.New("the store is not as it must be")

// maxProblems is how many problems are reported.
const maxProblems = 100

// Summary says how much a store has.
type Summary struct {
	Users    int // those who were erased included
	Events   int
	Problems int
}

// Verify checks what must be true of a store at each moment, while the service may be running, and reports each problem
// with the id that it is about, up to a hundred. It returns ErrCorrupt if there is one. Of SQLite it checks a copy,
// which needs as much room in the directory for temporary files. It changes nothing, and returns sqldb.ErrOlderSchema
// or sqldb.ErrNewerSchema where the store is not of this program's schema.
//
// A from that is not empty is a backup to check instead, which may be older: it is checked as what Restore would make
// of it.
func Verify(ctx context.Context, opts Options, from string, report func(problem string)) (Summary, error) {
	if from == "" && opts.URL != "" {
		opts.ReadOnly = true
		return verifyStore(ctx, opts, report)
	}
	var found Summary
	err := within(os.TempDir(), func(dir string) error {
		made := filepath.Join(dir, file)
		var err error
		if from == "" {
			err = copyLive(ctx, opts, made)
		} else {
			err = copyFile(ctx, from, made)
		}
		if err != nil {
			return err
		}
		found, err = verifyStore(ctx, Options{Dir: dir, Clock: opts.Clock, Random: opts.Random}, report)
		return err
	})
	return found, err
}

// verifyStore opens a store and checks it.
func verifyStore(ctx context.Context, opts Options, report func(problem string)) (Summary, error) {
	s, err := Open(ctx, opts)
	if err != nil {
		return Summary{}, err
	}
	found, err := s.verify(ctx, report)
	return found, errors.Join(err, s.Close())
}

// verifier looks for what is wrong on one snapshot.
type verifier struct {
	store   *Store
	q       sqldb.Querier
	report  func(string)
	found   Summary
	trimmed int64
	waiting map[users.ID]eventlog.Event // the newest event of those that have some without a number
}

func (s *Store) verify(ctx context.Context, report func(string)) (Summary, error) {
	v := verifier{store: s, report: report}
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		v.q, v.found, v.waiting = q, Summary{}, make(map[users.ID]eventlog.Event)
		for _, step := range []func(context.Context) error{v.engine, v.log, v.users, v.labels, v.strays} {
			if err := step(ctx); err != nil {
				return fmt.Errorf("verify: %w", err)
			}
		}
		return nil
	})
	if err == nil && v.found.Problems > 0 {
		err = ErrCorrupt
	}
	return v.found, err
}

func (v *verifier) problem(format string, args ...any) {
	if v.found.Problems++; v.found.Problems <= maxProblems {
		v.report(fmt.Sprintf(format, args...))
	}
}

// engine asks SQLite whether its pages and indexes are sound. PostgreSQL has checksums and tools of its own.
func (v *verifier) engine(ctx context.Context) error {
	if v.store.db.Engine() != sqldb.SQLite {
		return nil
	}
	rows, err := v.q.QueryContext(ctx, `PRAGMA integrity_check`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			v.problem("database: %s", text)
		}
	}
	return rows.Err()
}

// log checks that the numbers of the log have no gaps.
func (v *verifier) log(ctx context.Context) error {
	var first, last, n int64
	err := v.q.QueryRowContext(ctx, `
SELECT m.trimmed, (SELECT count(*) FROM event_log), (SELECT coalesce(min(seq), m.trimmed + 1) FROM event_log), (SELECT coalesce(max(seq), m.trimmed) FROM event_log)
FROM event_log_meta m WHERE m.id = 1`).Scan(&v.trimmed, &n, &first, &last)
	if err != nil {
		return err
	}
	v.found.Events = int(n)
	if first != v.trimmed+1 || n != last-v.trimmed {
		v.problem("event log: it was trimmed up to %d and has %d events, from %d to %d", v.trimmed, n, first, last)
	}
	if v.store.db.Engine() != sqldb.PostgreSQL {
		return nil
	}
	rows, err := v.q.QueryContext(ctx, `SELECT at, subject, type, payload FROM event_log_inbox ORDER BY arrival`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var about []byte
		var e eventlog.Event
		if err := rows.Scan(&at, &about, &e.Type, &e.Payload); err != nil {
			return err
		}
		e.Subject = string(about)
		v.waiting[users.ID(e.Subject)] = e
		v.found.Events++
	}
	return rows.Err()
}

// strays looks for what is about a user who is not there: users stay, as tombstones at least, so one who is gone was lost.
func (v *verifier) strays(ctx context.Context) error {
	subject := v.store.db.Engine().Pick(`e.subject`, `convert_from(e.subject, 'UTF8')`)
	for _, c := range []struct{ what, query string }{
		{"an event, and no such user", `SELECT DISTINCT ` + subject + ` FROM event_log e LEFT JOIN users u ON ` + v.store.db.Engine().Pick(`u.user_id`, `u.user_id::text`) + ` = ` + subject + ` WHERE u.user_id IS NULL`},
		{"a request, and no such user", `SELECT DISTINCT r.user_id FROM requests r LEFT JOIN users u ON u.user_id = r.user_id WHERE u.user_id IS NULL`},
		{"an event of a kind that there is not", `SELECT DISTINCT ` + subject + ` FROM event_log e WHERE e.type NOT IN ('` +
			strings.Join([]string{
				string(users.EventCreated), string(users.EventUpdated), string(users.EventDisabled), string(users.EventEnabled),
				string(users.EventDeleted), string(users.EventUndeleted), string(users.EventErased),
			}, `', '`) + `')`},
	} {
		if err := v.stray(ctx, c.what, c.query); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) stray(ctx context.Context, what, query string) error {
	rows, err := v.q.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		v.problem("user %s: there is %s", id, what)
	}
	return rows.Err()
}

// users checks each user by itself and against its events.
func (v *verifier) users(ctx context.Context) error {
	after := ""
	for {
		query := `SELECT ` + userColumns + ` FROM users u WHERE u.user_id > $1 ORDER BY u.user_id LIMIT ` + fmt.Sprint(snapshotPage)
		if after == "" {
			query = `SELECT ` + userColumns + ` FROM users u WHERE $1 = '' ORDER BY u.user_id LIMIT ` + fmt.Sprint(snapshotPage)
		}
		page, err := readUsers(ctx, v.q, query, after)
		if err != nil {
			return err
		}
		for _, u := range page {
			v.found.Users++
			v.user(u)
			if err := v.history(ctx, u); err != nil {
				return err
			}
			if u.Erased() {
				if err := v.unclaimed(ctx, u.ID); err != nil {
					return err
				}
			}
			after = string(u.ID)
		}
		if len(page) < snapshotPage {
			return nil
		}
	}
}

// user checks what must be true of a user.
func (v *verifier) user(u users.User) {
	for _, rule := range []struct {
		ok   bool
		text string
	}{
		{isUUID(string(u.ID)), "the id is no UUID"},
		{u.Revision >= 1, "the revision is below 1"},
		{u.State == users.Active || u.State == users.Disabled || u.State == users.Deleted, "the state is none"},
		{u.Erased() || emailKeyHolds(u.Email), "the key of the email is not that of the email"},
		{(u.State == users.Deleted) == !u.DeletedAt.IsZero(), "the state and the time of deletion do not go together"},
		{(u.State == users.Deleted && !u.Erased()) == !u.PurgeAt.IsZero(), "the state and the time of purging do not go together"},
		{(u.State == users.Deleted && !u.Erased()) == (u.Restores == users.Active || u.Restores == users.Disabled), "the state that undeleting restores is wrong"},
		{!u.Erased() || u.Equal(tombstone(u)), "it was erased and something personal is left"},
	} {
		if !rule.ok {
			v.problem("user %s: %s", u.ID, rule.text)
		}
	}
}

func emailKeyHolds(e users.Email) bool {
	parsed, err := users.ParseEmail("email", e.Text)
	return err == nil && parsed.Key == e.Key
}

// tombstone returns what may be left of an erased user.
func tombstone(u users.User) users.User {
	return users.User{
		ID: u.ID, State: users.Deleted, Revision: u.Revision,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, DeletedAt: u.DeletedAt, ErasedAt: u.ErasedAt,
	}
}

// history checks that the newest event of a user tells of the user as it is, and that those of an erased one tell nothing.
func (v *verifier) history(ctx context.Context, u users.User) error {
	newest, there := v.waiting[u.ID]
	if !there {
		found, err := v.newest(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			newest, there = found[0], true
		}
	}
	if !there {
		if v.trimmed == 0 {
			v.problem("user %s: the log has no event of it", u.ID)
		}
		return nil
	}
	v.tells(newest, u)
	if !u.Erased() {
		return nil
	}
	for after := int64(0); ; {
		events, err := v.store.log.History(ctx, v.q, string(u.ID), after, historyPage)
		if err != nil {
			return err
		}
		for _, e := range events {
			v.scrubbed(e, u.ID)
			after = e.Seq
		}
		if len(events) < historyPage {
			return nil
		}
	}
}

// newest returns the event of a user that has the greatest number, if there is one.
func (v *verifier) newest(ctx context.Context, id users.ID) ([]eventlog.Event, error) {
	var about any = string(id)
	if v.store.db.Engine() == sqldb.PostgreSQL {
		about = []byte(id)
	}
	rows, err := v.q.QueryContext(ctx, `SELECT seq, type, payload FROM event_log WHERE subject = $1 ORDER BY seq DESC LIMIT 1`, about)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []eventlog.Event
	for rows.Next() {
		var e eventlog.Event
		if err := rows.Scan(&e.Seq, &e.Type, &e.Payload); err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, rows.Err()
}

// tells checks that an event tells of a user as it is.
func (v *verifier) tells(e eventlog.Event, u users.User) {
	p, err := parsePayload(e)
	if err != nil {
		v.problem("user %s: %v", u.ID, err)
		return
	}
	if told := p.User.user(); !told.Equal(u) {
		v.problem("user %s: the row has revision %d, and the newest event, %d, tells of another user or of revision %d", u.ID, u.Revision, e.Seq, told.Revision)
	}
}

// scrubbed checks that an event of an erased user tells nothing personal.
func (v *verifier) scrubbed(e eventlog.Event, id users.ID) {
	p, err := parsePayload(e)
	if err != nil {
		v.problem("user %s: %v", id, err)
		return
	}
	u := p.User.user()
	left := tombstone(u)
	left.State = u.State // as it was then
	if p.Before != nil || !u.Equal(left) {
		v.problem("user %s: it was erased and event %d still has something personal", id, e.Seq)
	}
}

// unclaimed checks that no claim on an erased user has a digest of the time before; whether its events are still there says
// nothing about that.
func (v *verifier) unclaimed(ctx context.Context, id users.ID) error {
	for _, claims := range []struct{ query, what string }{
		{`SELECT count(*) FROM users WHERE user_id = $1 AND request_digest IS NOT NULL`, "the request that made it"},
		{`SELECT count(*) FROM requests WHERE user_id = $1 AND digest IS NOT NULL`, "a request that changed it"},
	} {
		var n int
		if err := v.q.QueryRowContext(ctx, claims.query, string(id)).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			v.problem("user %s: it was erased and %s still has a digest", id, claims.what)
		}
	}
	return nil
}

// labels checks that the labels of the rows are those by which users are found.
func (v *verifier) labels(ctx context.Context) error {
	each := v.store.db.Engine().Pick("json_each(u.labels)", "jsonb_each_text(u.labels)")
	for _, query := range []struct{ text, problem string }{
		{`SELECT u.user_id, j.key FROM users u CROSS JOIN ` + each + ` AS j WHERE u.erased_at IS NULL AND NOT EXISTS (
SELECT 1 FROM user_labels l WHERE l.key = j.key AND l.value = j.value AND l.created_at = u.created_at AND l.user_id = u.user_id AND l.state = u.state)`,
			"user %s: it is not found by its label %s"},
		{`SELECT l.user_id, l.key FROM user_labels l LEFT JOIN users u ON u.user_id = l.user_id
WHERE u.user_id IS NULL OR u.erased_at IS NOT NULL OR l.created_at <> u.created_at OR l.state <> u.state OR coalesce((u.labels ->> l.key) <> l.value, TRUE)`,
			"user %s: it is found by a label %s that it does not have"},
	} {
		if err := v.labelQuery(ctx, query.text, query.problem); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) labelQuery(ctx context.Context, query, problem string) error {
	rows, err := v.q.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, key string
		if err := rows.Scan(&id, &key); err != nil {
			return err
		}
		v.problem(problem, id, key)
	}
	return rows.Err()
}
