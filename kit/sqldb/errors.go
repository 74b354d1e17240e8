package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/concordat-dev/concordat/kit/fault"
)

// What Open returns, wrapped in one line that says which directory or schema it is about.
var (
	// ErrLocked: another process, or another DB of this one, has the data directory open.
	ErrLocked = errors.New("in use by another process")
	// ErrNewerSchema: the database was written by a newer program. Nothing of it was touched.
	ErrNewerSchema = errors.New("the database is newer than this program")
	// ErrOlderSchema: the database was written by an older program and opened with Options.ReadOnly, which does not
	// bring it up to date.
	ErrOlderSchema = errors.New("the database is older than this program")
	// ErrChangedMigration: a migration that this database has was another one when it was applied, so that nobody can
	// know what the schema is. Nothing of it was touched.
	ErrChangedMigration = errors.New("a migration was changed after it had been applied")
)

// ErrReadOnly: Write was called on a database that was opened with Options.ReadOnly.
var ErrReadOnly = errors.New("the database is open for reading alone")

// What Read and Write return beside the error of their function and of their context.
var (
	// ErrOutcomeUnknown: the storage failed during a commit, so the transaction may or may not be there. The
	// caller retries with the same idempotency key. It is never "done" and never "not done".
	ErrOutcomeUnknown = fault.New(fault.Unavailable, "OUTCOME_UNKNOWN", "outcome unknown: retry with the same key").WithDomain(fault.Domain)
	// ErrStorageFull: there is no room left on the disk. Nothing was written; reads go on, and so do writes
	// once there is room.
	ErrStorageFull = fault.New(fault.ResourceExhausted, "STORAGE_FULL", "the storage is full").WithDomain(fault.Domain)
	// ErrStorageFailed: an earlier commit or checkpoint failed with an I/O error, and nothing is written until the process is
	// started anew.
	ErrStorageFailed = fault.New(fault.Unavailable, "STORAGE_FAILED", "the storage has failed").WithDomain(fault.Domain)
	// ErrBusy: another connection held the database for longer than the busy timeout. Nothing was written.
	ErrBusy = fault.New(fault.Unavailable, "STORAGE_BUSY", "the storage is busy").WithDomain(fault.Domain)
	// ErrUnavailable: the PostgreSQL server cannot be reached, has no connection to spare, or takes no writes at present.
	// Nothing was written. Where nobody answers, not even with a refusal, until the deadline of the call, that is what the caller is
	// told: it may have been too short, and there is no time left to try again.
	ErrUnavailable = fault.New(fault.Unavailable, "STORAGE_UNAVAILABLE", "the storage is unavailable").WithDomain(fault.Domain)
	// ErrClosed: the database is being closed.
	ErrClosed = fault.New(fault.Unavailable, "STORAGE_CLOSED", "the storage is being closed").WithDomain(fault.Domain)
)

// IsUnique says whether err is the violation of a unique constraint or a primary key. The constraint is named
// by its columns as "users.email", several as "payments.caller, payments.key" in the order of the constraint; a
// unique index on an expression is named by itself, as "users_email_lower". An empty constraint means any.
func IsUnique(err error, constraint string) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return isUniquePostgres(pg, constraint)
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
	default:
		return false
	}
	if constraint == "" {
		return true
	}
	_, broken, ok := strings.Cut(e.Error(), "UNIQUE constraint failed: ")
	if !ok {
		return false
	}
	// The driver ends the message with the code in brackets.
	if i := strings.LastIndex(broken, " ("); i >= 0 {
		broken = broken[:i]
	}
	return broken == constraint || broken == "index '"+constraint+"'"
}

// IsBusy says whether err means that another connection held the database, or what was wanted of it, for too long.
func IsBusy(err error) bool {
	return errors.Is(err, ErrBusy) || hasCode(err, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) || pgCode(err) == pgLockNotAvailable
}

// hasCode says whether err is an error of SQLite with one of these primary codes.
func hasCode(err error, primary ...int) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, p := range primary {
		if e.Code()&0xff == p {
			return true
		}
	}
	return false
}

// classify turns an error of the engine that means something to every caller into its fault, and keeps err as
// the cause.
func classify(ctx context.Context, err error) error {
	code := pgCode(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrOutcomeUnknown):
		return err
	case hasCode(err, sqlite3.SQLITE_FULL), code == pgDiskFull:
		return ErrStorageFull.Because(err)
	case hasCode(err, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), code == pgLockNotAvailable, isConflict(err):
		return ErrBusy.Because(err)
	case ctx.Err() != nil && (hasCode(err, sqlite3.SQLITE_INTERRUPT) || errors.Is(err, sql.ErrTxDone) || code == pgCanceled || isLost(err)):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case code == pgCanceled:
		if _, ok := ctx.Deadline(); ok { // the limit on the server is a little before it
			return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		return ErrUnavailable.Because(err)
	case isLost(err) && errors.Is(err, context.DeadlineExceeded):
		return err // the call's deadline, which ctx is about to notice; see dialError
	case isLost(err):
		return ErrUnavailable.Because(err)
	default:
		return err
	}
}

// outcomeUnknown says whether a commit that ended with err may have happened. SQLite rolls back after each
// failed commit, but when the write or the sync of the log failed, the frames with the commit mark may be on
// the disk, and a recovery after a crash would find them. A full disk is no such case: the last frame, which
// has the mark, was not written whole.
func outcomeUnknown(err error) bool {
	return !hasCode(err, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CONSTRAINT)
}
