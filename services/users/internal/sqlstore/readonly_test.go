package sqlstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

func TestWhatOnlyReadsAStoreNeitherTakesNorMakesAnotherSchema(t *testing.T) {
	for name, row := range map[string]struct {
		spoil string
		is    error
		says  string
	}{
		"older": {`UPDATE schema_version_users SET version_id = 0`, sqldb.ErrOlderSchema, `schema "users" is at version 0, this program needs version 1`},
		"newer": {`UPDATE schema_version_users SET version_id = 99 WHERE version_id > 0`, sqldb.ErrNewerSchema, `schema "users" is at version 99, this program knows it up to version 1`},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, opts Options) {
				s, _ := running(t, opts)
				fill(t, s, 0, 3)
				err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
					_, err := tx.ExecContext(t.Context(), row.spoil)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				before := versions(t, s)
				to := filepath.Join(t.TempDir(), "backup")
				_, verr := Verify(t.Context(), deps(opts), "", complain(t))
				for what, err := range map[string]error{"backup": Backup(t.Context(), deps(opts), to), "verify": verr} {
					if !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n") {
						t.Errorf("%s: %v", what, err)
					}
				}
				if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("there is a backup: %v", err)
				}
				if after := versions(t, s); after != before {
					t.Errorf("the versions are %s, and were %s", after, before)
				}
			})
		})
	}
}

// versions returns what the database has of schemas.
func versions(t *testing.T, s *Store) (text string) {
	t.Helper()
	list := s.db.Engine().Pick(`group_concat(version_id)`, `string_agg(version_id::text, ',')`)
	err := s.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
		return q.QueryRowContext(t.Context(), `SELECT (SELECT `+list+` FROM schema_version_users) || ' ' || (SELECT `+list+` FROM schema_version_eventlog)`).Scan(&text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatIsNotThereIsNotMadeToBeVerified(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "missing")
	if found, err := Verify(t.Context(), deps(Options{Dir: dir}), "", complain(t)); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		t.Errorf("got %+v, %v", found, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}
