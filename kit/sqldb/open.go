package sqldb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// LeastConnections is the least value of Options.Connections: one for a Read and one for a Write.
const LeastConnections = 2

// Open opens the database, making what it needs, and brings its schema up to date. Of SQLite it locks the data
// directory first. It returns ErrLocked, ErrNewerSchema, ErrChangedMigration, or what is wrong with the directory or
// the URL, in one line each. A PostgreSQL server that cannot be reached is tried again for as long as ctx allows or,
// without a deadline, for 10 s; then the error is ErrUnavailable, or that of ctx where no host answered at all.
func Open(ctx context.Context, opts Options) (*DB, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if opts.URL != "" {
		return openPostgres(ctx, opts)
	}
	return openSQLite(ctx, opts)
}

func (o Options) check() error {
	switch {
	case o.Clock == nil:
		return errors.New("no clock given")
	case o.URL == "" && o.Dir == "":
		return errors.New("no data directory given")
	case o.URL == "" && (o.File == "" || o.File != filepath.Base(o.File) || o.File == "." || o.File == ".." || o.File == lockFile):
		return fmt.Errorf("%q is not the name of a database file", o.File)
	case o.Readers < 0:
		return fmt.Errorf("%d readers", o.Readers)
	case o.URL != "" && o.Random == nil:
		return errors.New("no source of randomness given")
	case o.Connections != 0 && o.Connections < LeastConnections:
		return fmt.Errorf("%d connections", o.Connections)
	}
	return checkSets(o.Migrations)
}
