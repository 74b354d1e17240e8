package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver of the files of backups

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// ErrNoBackup: the file is not a backup of users.
var ErrNoBackup = errors.New("is no backup of users")

// Backup writes all that the store has, as it is at one moment, into a new file, while the service may be running. The file is a
// SQLite database whichever engine the store is on, and is restored on either. It is complete once it has its name, and it holds
// personal data and keys: its mode is 0600.
//
// It changes nothing, and returns sqldb.ErrOlderSchema or sqldb.ErrNewerSchema where the store is not of this program's
// schema.
func Backup(ctx context.Context, opts Options, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already", to)
	}
	return within(filepath.Dir(to), func(dir string) error {
		made := filepath.Join(dir, file)
		if err := extract(ctx, opts, made); err != nil {
			return err
		}
		return publish(made, to)
	})
}

// within runs f with a new directory below another, which is removed afterwards.
func within(parent string, f func(dir string) error) error {
	dir, err := os.MkdirTemp(parent, ".users-*")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// extract writes a store into a new file, whose directory has nothing else.
func extract(ctx context.Context, opts Options, to string) error {
	if opts.URL == "" {
		return copyLive(ctx, opts, to)
	}
	opts.ReadOnly = true
	source, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	err = within(filepath.Dir(to), func(dir string) error {
		target, err := Open(ctx, Options{Dir: dir, Clock: opts.Clock, Random: opts.Random})
		if err != nil {
			return err
		}
		if err := errors.Join(source.copyTo(ctx, target), target.Close()); err != nil {
			return err
		}
		return copyFile(ctx, filepath.Join(dir, file), to)
	})
	return errors.Join(err, source.Close())
}

// copyLive writes the SQLite store of a service into a new file, if it is of this program's schema.
func copyLive(ctx context.Context, opts Options, to string) error {
	opts.ReadOnly = true
	s, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	return errors.Join(copyFile(ctx, s.db.Path(), to), s.Close())
}

// copyTo copies a snapshot of the store into one that has no users, in one transaction.
func (s *Store) copyTo(ctx context.Context, target *Store) error {
	return target.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := empty(ctx, tx, target.db.Engine()); err != nil {
			return err
		}
		return s.db.Read(ctx, func(q sqldb.Querier) error {
			return copyAll(ctx, q, s.db.Engine(), tx, target.db.Engine())
		})
	})
}

// copyFile writes a SQLite database, as it is at one moment, into a new file. Another process may have it open: SQLite sees to
// that, and the lock of the data directory is not needed to read.
func copyFile(ctx context.Context, from, to string) (err error) {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	query := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(5000)"}}
	dsn := &url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(from), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var known bool
	err = db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'schema_version_users')`).Scan(&known)
	if err == nil && !known {
		err = ErrNoBackup
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	// VACUUM INTO takes a file that is there and empty, and leaves it its mode.
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, to); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// publish gives a file its name once it is on the disk; a file that has the name already stays.
func publish(made, to string) error {
	if err := syncFile(made); err != nil {
		return err
	}
	if err := os.Link(made, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}

// syncFile waits until a file or a directory is on the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Restore makes the store of a backup, which may be that of the other engine. The target must have nothing: of SQLite no
// database in the data directory, of PostgreSQL no users and no events. The backup is checked first (Verify), and nothing is
// there until all is. Resume tokens of before are too old for the restored log.
func Restore(ctx context.Context, opts Options, from string, report func(problem string)) (Summary, error) {
	parent := os.TempDir()
	if opts.URL == "" {
		if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
			return Summary{}, err
		}
		parent = opts.Dir
		// Beside the database SQLite has files that it plays into whatever has its name.
		for _, name := range []string{file, file + "-wal", file + "-shm", file + "-journal"} {
			if _, err := os.Lstat(filepath.Join(opts.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
				return Summary{}, fmt.Errorf("data directory %s: %s: %w", opts.Dir, name, errNotEmpty)
			}
		}
	}
	var found Summary
	err := within(parent, func(dir string) (err error) {
		if err := copyFile(ctx, from, filepath.Join(dir, file)); err != nil {
			return err
		}
		if found, err = restoreCopy(ctx, opts, dir, report); err != nil || opts.URL != "" {
			return err
		}
		if err := publish(filepath.Join(dir, file), filepath.Join(opts.Dir, file)); err != nil {
			return err
		}
		return verifyRestored(ctx, opts, found, report)
	})
	return found, err
}

// verifyRestored checks what a service will find: that nothing has come in between the restored file and its name.
func verifyRestored(ctx context.Context, opts Options, want Summary, report func(string)) error {
	found, err := verifyStore(ctx, opts, report)
	if err != nil {
		return fmt.Errorf("what was restored: %w", err)
	}
	if found != want {
		return fmt.Errorf("what was restored has %d users and %d events, the backup %d and %d", found.Users, found.Events, want.Users, want.Events)
	}
	return nil
}

// restoreCopy brings the copy of a backup up to date and checks it; on PostgreSQL it copies it there.
func restoreCopy(ctx context.Context, opts Options, dir string, report func(string)) (found Summary, err error) {
	source, err := Open(ctx, Options{Dir: dir, Clock: opts.Clock, Random: opts.Random})
	if err != nil {
		return Summary{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if found, err = source.verify(ctx, report); err != nil {
		return found, err
	}
	err = source.db.Write(ctx, func(tx *sqldb.Tx) error { return eventlog.Renew(ctx, tx, opts.Random) })
	if err != nil || opts.URL == "" {
		return found, err
	}
	target, err := Open(ctx, opts)
	if err != nil {
		return found, err
	}
	return found, errors.Join(source.copyTo(ctx, target), target.Close())
}
