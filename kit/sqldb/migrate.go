package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
)

// versionTable is the prefix of the table that holds the version of a set.
const versionTable = "schema_version_"

// migrationWait bounds the wait for another process that migrates the same database.
const migrationWait = time.Minute

var setName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

func checkSets(sets []Set) error {
	seen := make(map[string]bool, len(sets))
	for _, s := range sets {
		if !setName.MatchString(s.Name) {
			return fmt.Errorf("schema %q: the name must be of lower-case letters, digits and _", s.Name)
		}
		if s.FS == nil {
			return fmt.Errorf("schema %q: no migrations given", s.Name)
		}
		if seen[s.Name] {
			return fmt.Errorf("schema %q is given twice", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// schema is a set as one engine has it.
type schema struct {
	Set
	files    fs.FS // the migrations for the engine
	provider *goose.Provider
	version  int64 // of the database; 0 where it has none of it
	newest   int64 // that this program knows
}

// inspect holds the database against the sets and changes nothing. It returns ErrNewerSchema and ErrChangedMigration.
func inspect(ctx context.Context, kind Engine, db *sql.DB, sets []Set) ([]schema, error) {
	found, err := versions(ctx, kind, db)
	if err != nil {
		return nil, fmt.Errorf("read the schema version: %w", err)
	}
	schemas := make([]schema, len(sets))
	for i, set := range sets {
		s, err := set.of(kind, db)
		if err != nil {
			return nil, fmt.Errorf("schema %q: %w", set.Name, err)
		}
		if s.version = found[s.Name]; s.version > s.newest {
			return nil, fmt.Errorf("%w: schema %q is at version %d, this program knows it up to version %d",
				ErrNewerSchema, s.Name, s.version, s.newest)
		}
		delete(found, s.Name)
		schemas[i] = s
	}
	for name, version := range found {
		return nil, fmt.Errorf("%w: schema %q is at version %d, this program does not know it", ErrNewerSchema, name, version)
	}
	for _, s := range schemas {
		if err := s.unchanged(ctx, kind, db); err != nil {
			return nil, err
		}
	}
	return schemas, nil
}

// upToDate returns ErrOlderSchema unless the database has all that the sets have.
func upToDate(ctx context.Context, kind Engine, db *sql.DB, sets []Set) error {
	schemas, err := inspect(ctx, kind, db, sets)
	if err != nil {
		return err
	}
	for _, s := range schemas {
		if s.version < s.newest {
			return fmt.Errorf("%w: schema %q is at version %d, this program needs version %d; the service brings it up to date when it starts",
				ErrOlderSchema, s.Name, s.version, s.newest)
		}
	}
	return nil
}

// migrate brings all sets up to date. It looks at all of them before it changes one, so that a database of a
// newer program stays as it is.
func migrate(ctx context.Context, kind Engine, db *sql.DB, sets []Set) error {
	schemas, err := inspect(ctx, kind, db, sets)
	if err != nil {
		return err
	}
	for _, s := range schemas {
		if _, err := s.provider.Up(ctx); err != nil {
			return fmt.Errorf("migrate schema %q: %w", s.Name, migrationError(err))
		}
		if err := s.record(ctx, kind, db); err != nil {
			return fmt.Errorf("record the migrations of schema %q: %w", s.Name, err)
		}
	}
	return nil
}

// migrate brings the schema of a PostgreSQL database up to date, while no other process does.
//
// The lock is that of a transaction which is held open meanwhile, and not one of the session: so it goes with the
// connection however that ends, also behind a pooler.
func (s *server) migrate(ctx context.Context, sets []Set) error {
	holder, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return classify(ctx, &lostError{oneLine(err)})
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingWait)
		defer cancel()
		_ = holder.Close(ctx)
	}()
	_, err = holder.Exec(ctx, fmt.Sprintf("begin; set local lock_timeout = %d; set local idle_in_transaction_session_timeout = 0; select pg_advisory_xact_lock(%d)",
		migrationWait.Milliseconds(), int64(migrationLock)))
	if err != nil {
		return fmt.Errorf("wait until no other process migrates: %w", classify(ctx, oneLine(err)))
	}
	db := s.openPool(2)
	return errors.Join(migrate(ctx, PostgreSQL, db, sets), db.Close())
}

// of returns the set as an engine has it.
func (s Set) of(kind Engine, db *sql.DB) (schema, error) {
	files, err := fs.Sub(s.FS, path.Join(s.Dir, string(kind)))
	if err != nil {
		return schema{}, err
	}
	p, err := goose.NewProvider(goose.Dialect(kind.Pick(string(goose.DialectSQLite3), string(goose.DialectPostgres))), db, files,
		goose.WithTableName(versionTable+s.Name),
		goose.WithDisableGlobalRegistry(true))
	if errors.Is(err, goose.ErrNoMigrations) {
		return schema{}, fmt.Errorf("no migrations in the folder %q", path.Join(s.Dir, string(kind)))
	}
	if err != nil {
		return schema{}, err
	}
	made := schema{Set: s, files: files, provider: p}
	for _, source := range p.ListSources() {
		made.newest = max(made.newest, source.Version)
	}
	return made, nil
}

// versions returns the version of every set that the database has.
func versions(ctx context.Context, kind Engine, db *sql.DB) (map[string]int64, error) {
	names, err := setNames(ctx, kind, db)
	if err != nil {
		return nil, err
	}
	found := make(map[string]int64, len(names))
	for _, name := range names {
		// The name is one that setName allows, so it needs no quoting.
		var v sql.NullInt64
		if err := db.QueryRowContext(ctx, "SELECT max(version_id) FROM "+versionTable+name+" WHERE is_applied").Scan(&v); err != nil {
			return nil, err
		}
		found[name] = v.Int64
	}
	return found, nil
}

func setNames(ctx context.Context, kind Engine, db *sql.DB) ([]string, error) {
	rows, err := db.QueryContext(ctx, kind.Pick(
		"SELECT substr(name, $1) FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, $2) = $3",
		"SELECT substr(tablename, $1) FROM pg_tables WHERE schemaname = current_schema() AND substr(tablename, 1, $2) = $3"),
		len(versionTable)+1, len(versionTable), versionTable)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if !setName.MatchString(name) {
			return nil, fmt.Errorf("table %s%s is not of this program", versionTable, name)
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// migrationError leaves out what goose says beside the file and its error, so that it is one line.
func migrationError(err error) error {
	var partial *goose.PartialError
	if errors.As(err, &partial) && partial.Failed != nil && partial.Failed.Source != nil {
		return fmt.Errorf("%s: %w", partial.Failed.Source.Path, partial.Err)
	}
	return err
}
