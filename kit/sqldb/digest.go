package sqldb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
)

// digestTable holds what each migration was when it was applied, or when the database was first opened by a program
// that looks.
const digestTable = "schema_digests"

// digestOf returns what a migration is told by: that of its text, whatever ends its lines.
func digestOf(text []byte) string {
	sum := sha256.Sum256(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
	return hex.EncodeToString(sum[:])
}

// digests returns those of the set's migrations for an engine, by version.
func (s schema) digests() (map[int64]string, error) {
	all := make(map[int64]string)
	for _, source := range s.provider.ListSources() {
		text, err := fs.ReadFile(s.files, path.Base(source.Path))
		if err != nil {
			return nil, err
		}
		all[source.Version] = digestOf(text)
	}
	return all, nil
}

// recorded returns the digests that the database has of a set, by version.
func recorded(ctx context.Context, kind Engine, db *sql.DB, set string) (map[int64]string, error) {
	there, err := hasTable(ctx, kind, db, digestTable)
	if err != nil || !there {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT version, digest FROM "+digestTable+" WHERE set_name = $1", set)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[int64]string)
	for rows.Next() {
		var version int64
		var sum string
		if err := rows.Scan(&version, &sum); err != nil {
			return nil, err
		}
		all[version] = sum
	}
	return all, rows.Err()
}

// unchanged returns ErrChangedMigration if a migration that the database has is no longer what it was.
func (s schema) unchanged(ctx context.Context, kind Engine, db *sql.DB) error {
	were, err := recorded(ctx, kind, db, s.Name)
	if err != nil {
		return err
	}
	are, err := s.digests()
	if err != nil {
		return err
	}
	for _, source := range s.provider.ListSources() {
		if was, there := were[source.Version]; there && was != are[source.Version] {
			return fmt.Errorf("%w: %s of schema %q; what it is to change belongs into a migration of its own",
				ErrChangedMigration, path.Base(source.Path), s.Name)
		}
		delete(were, source.Version)
	}
	for version := range were {
		return fmt.Errorf("%w: version %d of schema %q is gone", ErrChangedMigration, version, s.Name)
	}
	return nil
}

// record keeps the digests of the migrations that are applied, as far as the database does not have them.
func (s schema) record(ctx context.Context, kind Engine, db *sql.DB) error {
	have, err := recorded(ctx, kind, db, s.Name)
	if err != nil {
		return err
	}
	are, err := s.digests()
	if err != nil {
		return err
	}
	if have == nil {
		_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+digestTable+" (set_name TEXT NOT NULL, version BIGINT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (set_name, version))")
		if err != nil {
			return err
		}
	}
	for version, sum := range are {
		if _, there := have[version]; there {
			continue
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO "+digestTable+" (set_name, version, digest) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", s.Name, version, sum); err != nil {
			return err
		}
	}
	return nil
}

func hasTable(ctx context.Context, kind Engine, db *sql.DB, name string) (there bool, err error) {
	err = db.QueryRowContext(ctx, kind.Pick(
		"SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1)",
		"SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1)"), name).Scan(&there)
	return there, err
}
