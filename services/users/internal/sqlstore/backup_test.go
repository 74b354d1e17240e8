package sqlstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// changed does one change to a user.
func (s *Store) changed(t *testing.T, n int, what users.EventType, f func(users.User) users.User) users.User {
	t.Helper()
	u, err := s.Change(t.Context(), users.Change{
		ID:    newDraft(n).User.ID,
		Claim: users.Claim{Caller: "user:admin", RequestID: newDraft(n).Claim.RequestID, Digest: sha256.Sum256([]byte(what)), At: newDraft(n).Claim.At},
		Apply: func(u users.User) (users.User, users.EventType, error) {
			v := f(u)
			v.Revision, v.UpdatedAt = u.Revision+1, u.UpdatedAt.Add(time.Second)
			return v, what, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// furnish makes users of every kind, and returns how many there are and how many events.
func furnish(t *testing.T, s *Store) (made, events int) {
	t.Helper()
	fill(t, s, 0, 1200)
	at := newDraft(0).User.CreatedAt.Add(time.Hour)
	s.changed(t, 1, users.EventUpdated, func(u users.User) users.User {
		u.Address = &users.Address{CountryCode: "CH", Lines: []string{"ä", "'"}}
		u.Labels = map[string]string{"a": "1", "b": ""}
		return u
	})
	s.changed(t, 10, users.EventDeleted, func(u users.User) users.User {
		u.Restores, u.State, u.DeletedAt, u.PurgeAt = u.State, users.Deleted, at, at.Add(time.Hour)
		return u
	})
	s.changed(t, 20, users.EventErased, func(u users.User) users.User {
		u.State, u.DeletedAt, u.ErasedAt = users.Deleted, at, at
		return tombstone(u)
	})
	return 1200, 1203
}

func complain(t *testing.T) func(string) {
	return func(problem string) { t.Errorf("verify: %s", problem) }
}

func deps(opts Options) Options {
	opts.Clock, opts.Random = clock.System(), rand.Reader
	return opts
}

func TestABackupOfARunningStoreIsRestoredOnEitherEngine(t *testing.T) {
	t.Parallel()
	for from, source := range engines {
		for to, target := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				fromOpts, toOpts := source(t), target(t)
				toOpts.Dir = filepath.Join(toOpts.Dir, "new") // not made yet
				s, _ := running(t, fromOpts)
				sub, err := s.Watch(t.Context(), users.Watch{Scope: "test"})
				if err != nil {
					t.Fatal(err)
				}
				defer sub.Close()
				made, events := furnish(t, s)
				backup := filepath.Join(t.TempDir(), "users.backup")
				if err := Backup(t.Context(), deps(fromOpts), backup); err != nil {
					t.Fatal(err)
				}
				if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("the backup has mode %v, %v", info.Mode(), err)
				}
				s.changed(t, 2, users.EventUpdated, func(u users.User) users.User { u.FirstName = "Later"; return u })

				want := Summary{Users: made, Events: events}
				if got, err := Verify(t.Context(), deps(Options{}), backup, complain(t)); err != nil || got != want {
					t.Errorf("verified %+v, %v; want %+v", got, err, want)
				}
				if got, err := Restore(t.Context(), deps(toOpts), backup, complain(t)); err != nil || got != want {
					t.Fatalf("restored %+v, %v; want %+v", got, err, want)
				}
				restored, _ := running(t, toOpts)
				wantCopy(t, s, restored)
				if _, err := restored.Watch(t.Context(), users.Watch{Scope: "test", Token: sub.Position()}); reason(err) != eventlog.ErrTooOld.Reason() {
					t.Errorf("a token of before the backup: %v", err)
				}
				wantGoesOn(t, restored)
				if got, err := Verify(t.Context(), deps(toOpts), "", complain(t)); err != nil || got.Users != made+1 {
					t.Errorf("verified %+v, %v", got, err)
				}
			})
		}
	}
}

func reason(err error) string {
	f, ok := fault.As(err)
	if !ok {
		return ""
	}
	return f.Reason()
}

// wantCopy checks that a store has what another had before user 2 was changed.
func wantCopy(t *testing.T, s, restored *Store) {
	t.Helper()
	for n := range 30 {
		if n == 2 {
			continue
		}
		want, err := s.Get(t.Context(), newDraft(n).User.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := restored.Get(t.Context(), want.ID); err != nil || !got.Equal(want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if string(s.PageKey()) != string(restored.PageKey()) {
		t.Error("the key of page tokens is another one")
	}
	again := person(3)
	again.User.ID = person(5000).User.ID
	outcomes, err := restored.Create(t.Context(), []users.Draft{again}, users.Commit)
	if err != nil || outcomes[0].Err != nil || outcomes[0].User.ID != person(3).User.ID {
		t.Errorf("a request of before the backup: %+v, %v", outcomes, err)
	}
	c := users.Change{ID: person(1).User.ID, Claim: users.Claim{Caller: "user:admin", RequestID: newDraft(1).Claim.RequestID, Digest: users.Digest{1}}}
	if _, err := restored.Change(t.Context(), c); !errors.Is(err, users.ErrRequestIDReused) {
		t.Errorf("a claim of before the backup: %v", err)
	}
	n := 0
	if err := restored.EventsOf(t.Context(), person(10).User.ID, func(users.Event) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d events of user 10, %v; want 2", n, err)
	}
}

// wantGoesOn checks that a restored store takes users and tells of them.
func wantGoesOn(t *testing.T, s *Store) {
	t.Helper()
	sub, err := s.Watch(t.Context(), users.Watch{Scope: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	fill(t, s, 9000, 9001)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if e, _, err := sub.Next(ctx); err != nil || e.User.ID != person(9000).User.ID {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestARestoreTouchesNothingThatIsThere(t *testing.T) {
	onEach(t, func(t *testing.T, opts Options) {
		s, stop := running(t, opts)
		fill(t, s, 0, 10)
		backup := filepath.Join(t.TempDir(), "users.backup")
		if err := Backup(t.Context(), deps(opts), backup); err != nil {
			t.Fatal(err)
		}
		fill(t, s, 10, 11)
		stop()
		if _, err := Restore(t.Context(), deps(opts), backup, complain(t)); !errors.Is(err, errNotEmpty) {
			t.Errorf("restored over a store: %v", err)
		}
		again, _ := running(t, opts)
		if n, err := again.Count(t.Context(), users.Selection{}); err != nil || n.N != 11 {
			t.Errorf("there are %+v users, %v; want 11", n, err)
		}
		if err := Backup(t.Context(), deps(opts), backup); err == nil {
			t.Error("a backup was written over another file")
		}
	})
}

// A log of SQLite that is left of a database which is gone would be played into the restored one.
func TestARestoreRefusesADirectoryWithWhatIsLeftOfAnotherStore(t *testing.T) {
	t.Parallel()
	opts := Options{Dir: t.TempDir()}
	s, stop := running(t, opts)
	fill(t, s, 0, 10)
	backup := filepath.Join(t.TempDir(), "users.backup")
	if err := Backup(t.Context(), deps(opts), backup); err != nil {
		t.Fatal(err)
	}
	stop()
	for _, left := range []string{"-wal", "-shm", "-journal"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file+left), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), deps(Options{Dir: dir}), backup, complain(t)); !errors.Is(err, errNotEmpty) {
			t.Errorf("beside %s: %v", left, err)
		}
		if _, err := os.Stat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("beside %s something was restored: %v", left, err)
		}
	}
}

func TestWhatIsNoBackupIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, cut := filepath.Join(dir, "text"), filepath.Join(dir, "cut")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := Options{Dir: filepath.Join(dir, "data")}
	s, stop := running(t, opts)
	fill(t, s, 0, 500)
	whole := filepath.Join(dir, "whole")
	if err := Backup(t.Context(), deps(opts), whole); err != nil {
		t.Fatal(err)
	}
	stop()
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, content[:len(content)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"a text": text, "a part": cut, "nothing": filepath.Join(dir, "nothing"), "a directory": dir} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "data")
			if _, err := Restore(t.Context(), deps(Options{Dir: target}), from, func(string) {}); err == nil {
				t.Error("it was restored")
			}
			left, err := os.ReadDir(target)
			if err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := Verify(t.Context(), deps(Options{}), from, func(string) {}); err == nil {
				t.Error("it was verified")
			}
		})
	}
}

func TestVerifyFindsWhatIsWrongAndNamesTheUser(t *testing.T) {
	t.Parallel()
	id := string(person(4).User.ID)
	labelled, erased := string(person(10).User.ID), string(person(20).User.ID)
	subject := map[sqldb.Engine]string{sqldb.SQLite: `'%'`, sqldb.PostgreSQL: `convert_to('%', 'UTF8')`}
	about := func(engine sqldb.Engine, id string) string { return strings.ReplaceAll(subject[engine], "%", id) }
	for name, row := range map[string]struct {
		about string
		spoil func(sqldb.Engine) string
	}{
		"the key of an email": {id, func(sqldb.Engine) string {
			return `UPDATE users SET email_key = 'x@example.com' WHERE user_id = '` + id + `'`
		}},
		"a state without its time":   {id, func(sqldb.Engine) string { return `UPDATE users SET state = 'DELETED' WHERE user_id = '` + id + `'` }},
		"a time without its state":   {id, func(sqldb.Engine) string { return `UPDATE users SET purge_at = 5 WHERE user_id = '` + id + `'` }},
		"a change without its event": {id, func(sqldb.Engine) string { return `UPDATE users SET first_name = 'X' WHERE user_id = '` + id + `'` }},
		"a revision":                 {id, func(sqldb.Engine) string { return `UPDATE users SET revision = 7 WHERE user_id = '` + id + `'` }},
		"a label that is not found":  {labelled, func(sqldb.Engine) string { return `DELETE FROM user_labels WHERE user_id = '` + labelled + `'` }},
		"a label of another value": {labelled, func(sqldb.Engine) string {
			return `UPDATE user_labels SET value = 'x' WHERE user_id = '` + labelled + `'`
		}},
		"a label of nobody": {"00000000-0000-0000-0000-000000000001", func(sqldb.Engine) string {
			return `INSERT INTO user_labels (key, value, created_at, user_id, state) VALUES ('a', 'b', 1, '00000000-0000-0000-0000-000000000001', 'ACTIVE')`
		}},
		"a name on a tombstone": {erased, func(sqldb.Engine) string { return `UPDATE users SET first_name = 'X' WHERE user_id = '` + erased + `'` }},
		"a digest on a tombstone": {erased, func(e sqldb.Engine) string {
			return `UPDATE users SET request_digest = ` + e.Pick(`x'00'`, `'\x00'`) + ` WHERE user_id = '` + erased + `'`
		}},
		"a digest of a change of a tombstone": {erased, func(e sqldb.Engine) string {
			return `UPDATE requests SET digest = ` + e.Pick(`x'00'`, `'\x00'`) + ` WHERE user_id = '` + erased + `'`
		}},
		"a name in an event of the erased": {erased, func(e sqldb.Engine) string {
			text := `(SELECT payload FROM event_log WHERE subject = ` + about(e, string(person(21).User.ID)) + `)`
			return `UPDATE event_log SET payload = ` + text + ` WHERE subject = ` + about(e, erased) + ` AND type = 'USER_CREATED'`
		}},
		"a user who is gone": {id, func(sqldb.Engine) string { return `DELETE FROM users WHERE user_id = '` + id + `'` }},
		"a request of nobody": {"00000000-0000-0000-0000-000000000001", func(e sqldb.Engine) string {
			return `INSERT INTO requests (request_id, caller, user_id, at) VALUES ('00000000-0000-0000-0000-000000000009', 'c', '00000000-0000-0000-0000-000000000001', 1)`
		}},
		"an event of a kind that there is not": {id, func(e sqldb.Engine) string {
			return `UPDATE event_log SET type = 'NONSENSE' WHERE subject = ` + about(e, id)
		}},
		"an event that is gone": {"event log", func(e sqldb.Engine) string { return `DELETE FROM event_log WHERE subject = ` + about(e, id) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for engine, options := range engines {
				opts := options(t)
				s, stop := running(t, opts)
				sub, err := s.Watch(t.Context(), users.Watch{Scope: "test", Filter: users.Compare{Field: users.FieldID, Text: erased}})
				if err != nil {
					t.Fatal(err)
				}
				fill(t, s, 0, 30)
				s.changed(t, 20, users.EventErased, func(u users.User) users.User {
					u.DeletedAt, u.ErasedAt = u.CreatedAt, u.CreatedAt
					return tombstone(u)
				})
				for range 2 {
					if _, _, err := sub.Next(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := Verify(t.Context(), deps(opts), "", complain(t)); err != nil {
					t.Errorf("%s: before: %v", engine, err)
				}
				err = s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
					_, err := tx.ExecContext(t.Context(), row.spoil(s.db.Engine()))
					return err
				})
				if err != nil {
					t.Fatalf("%s: %v", engine, err)
				}
				var problems []string
				got, err := Verify(t.Context(), deps(opts), "", func(p string) { problems = append(problems, p) })
				if !errors.Is(err, ErrCorrupt) || got.Problems != len(problems) || !strings.Contains(strings.Join(problems, "\n"), row.about) {
					t.Errorf("%s: %+v, %v: %q; want a problem of %s", engine, got, err, problems, row.about)
				}
				stop()
			}
		})
	}
}

func TestVerifyFindsADigestOfTheErasedWhoseEventsAreTrimmed(t *testing.T) {
	t.Parallel()
	erased := string(person(2).User.ID)
	for engine, options := range engines {
		for _, spoil := range []string{
			`UPDATE users SET request_digest = % WHERE user_id = '` + erased + `'`,
			`UPDATE requests SET digest = % WHERE user_id = '` + erased + `'`,
		} {
			opts := options(t)
			s, stop := running(t, opts)
			fill(t, s, 0, 3)
			s.changed(t, 2, users.EventErased, func(u users.User) users.User {
				u.DeletedAt, u.ErasedAt = u.CreatedAt, u.CreatedAt
				return tombstone(u)
			})
			sub, err := s.log.Subscribe(t.Context(), eventlog.Watch{Scope: "test"}) // all events have a number now
			if err != nil {
				t.Fatal(err)
			}
			sub.Close()
			if _, err := s.log.Trim(t.Context(), math.MaxInt64); err != nil {
				t.Fatal(err)
			}
			if found, err := Verify(t.Context(), deps(opts), "", complain(t)); err != nil || found.Events != 0 {
				t.Errorf("%s: before: %+v, %v", engine, found, err)
			}
			err = s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.ExecContext(t.Context(), strings.ReplaceAll(spoil, "%", s.db.Engine().Pick(`x'00'`, `'\x00'`)))
				return err
			})
			if err != nil {
				t.Fatalf("%s: %v", engine, err)
			}
			var problems []string
			_, err = Verify(t.Context(), deps(opts), "", func(p string) { problems = append(problems, p) })
			if !errors.Is(err, ErrCorrupt) || len(problems) != 1 || !strings.Contains(problems[0], erased) {
				t.Errorf("%s: after %s: %v: %q", engine, spoil, err, problems)
			}
			stop()
		}
	}
}
