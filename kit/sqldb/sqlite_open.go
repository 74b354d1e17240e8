package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"modernc.org/sqlite"
)

const (
	defaultReaders = 16
	// busyTimeout bounds the wait for a lock of the engine. The one writer and the lock on the directory leave
	// nothing to wait for but the recovery after a crash.
	busyTimeout = 5 * time.Second
	// walPages is after how many pages the write-ahead log is copied into the database; see embedded.logIsLong. Writes all over an
	// index meet the same pages again; the later the copy, the fewer of them are copied twice.
	walPages = 16384
	// walLimit is the size, in bytes, that the write-ahead log is cut back to after a burst.
	walLimit = 64 << 20
)

// openSQLite locks the data directory, opens the database, making it if need be, and brings its schema up to date.
func openSQLite(ctx context.Context, opts Options) (*DB, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", opts.Dir, err)
	}
	path := filepath.Join(dir, opts.File)
	if opts.ReadOnly {
		s, err := openFileToRead(ctx, path, opts)
		if err != nil {
			return nil, err
		}
		return newDB(s, path, s.listeners, true), nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := openFile(ctx, path, opts)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	s.lock = lock
	return newDB(s, path, s.listeners, false), nil
}

// openFileToRead opens a database that is there, which another process may have open.
func openFileToRead(ctx context.Context, path string, opts Options) (*embedded, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("database %s: %w", path, cause(err))
	}
	readers, err := opts.pool(path, opts.readers(), "cache_size(-2048)", "query_only(1)")
	if err != nil {
		return nil, err
	}
	if err := upToDate(ctx, SQLite, readers, opts.Migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), readers.Close())
	}
	return &embedded{
		clock: opts.Clock, readers: readers, listeners: &listeners{}, turns: newTurns(1, opts.Clock), title: title(path), ended: make(chan struct{}),
	}, nil
}

// readers returns how many Reads run at once.
func (o Options) readers() int {
	if o.Readers == 0 {
		return defaultReaders
	}
	return o.Readers
}

// title returns the name of a database, for operators.
func title(path string) string { return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) }

func openFile(ctx context.Context, path string, opts Options) (*embedded, error) {
	// SQLite gives the files beside the database the mode of the database.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(file.Close(), syncDir(filepath.Dir(path)))
	}
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, cause(err))
	}

	writer, err := opts.pool(path, 1,
		"cache_size(-8192)", // KiB, negative by the engine's convention
		"journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", walLimit),
		// What is deleted is overwritten, also in pages that become free: some µs for each row of a mass deletion, nothing elsewhere.
		"secure_delete(ON)")
	if err != nil {
		return nil, err
	}
	readers, err := opts.pool(path, opts.readers(), "cache_size(-2048)", "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	if err := prepare(ctx, path, writer, opts.Migrations); err != nil {
		return nil, errors.Join(err, readers.Close(), writer.Close())
	}
	limit := opts.walPages
	if limit == 0 {
		limit = walPages
	}
	return &embedded{
		walPages:  limit,
		clock:     opts.Clock,
		writer:    writer,
		readers:   readers,
		listeners: &listeners{},
		turns:     newTurns(1, opts.Clock),
		title:     title(path),
		ended:     make(chan struct{}),
	}, nil
}

// prepare checks that the database is what it must be and migrates it.
func prepare(ctx context.Context, path string, writer *sql.DB, sets []Set) error {
	var mode string
	if err := writer.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	if mode != "wal" {
		return fmt.Errorf("database %s: the file system allows no write-ahead log (journal mode %q)", path, mode)
	}
	if err := migrate(ctx, SQLite, writer, sets); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	return nil
}

// pool returns at most n connections to the file at path, each set up with the pragmas.
func (o Options) pool(path string, n int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_dqs": {"0"}} // a string in double quotes is an error, as it is in other engines
	if o.ReadOnly {
		query.Set("mode", "ro")
	}
	query.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	query.Add("_pragma", "foreign_keys(1)")
	query.Add("_pragma", "temp_store(MEMORY)")
	for _, p := range pragmas {
		query.Add("_pragma", p)
	}
	// A file: URI, because a path may have a "?" or a "%" in it.
	dsn := &url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	inner, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	if o.wrap != nil {
		inner = o.wrap(inner)
	}
	db := sql.OpenDB(connector{inner})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

const lockFile = "lock"

// dirLock is the exclusive use of a data directory. The system releases it when the process dies, however it
// dies.
type dirLock struct{ flock *flock.Flock }

func lockDir(dir string) (*dirLock, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, cause(err))
	}
	f := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	ok, err := f.TryLock()
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, cause(err))
	}
	if !ok {
		return nil, fmt.Errorf("data directory %s: %w", dir, ErrLocked)
	}
	return &dirLock{f}, nil
}

// makeDir makes a directory and those above it that are missing, so that they are there after a power cut.
func makeDir(dir string) error {
	var changed []string // the directories that get an entry
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break // MkdirAll says what is wrong with it, if anything is
		}
		changed = append(changed, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range changed {
		if err := syncDir(d); err != nil && !errors.Is(err, fs.ErrPermission) { // it may be ours to write to and not to read
			return err
		}
	}
	return nil
}

// syncDir writes the entries of a directory to the disk, where the system has a way to.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		err = nil // so do file systems answer that have no such thing
	}
	return errors.Join(err, d.Close())
}

// release gives the directory free. The file stays: to remove it would let two processes lock two files of the
// same name.
func (l *dirLock) release() error { return l.flock.Close() }

// cause returns why a file operation failed, without the path that the message names already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", strings.ToLower(p.Op), p.Err)
	}
	return err
}
