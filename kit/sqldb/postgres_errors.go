package sqldb

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of PostgreSQL that mean something here (SQLSTATE).
const (
	pgUnique            = "23505"
	pgReadOnly          = "25006" // the server takes no writes: it is a standby, or became one
	pgIdleInTransaction = "25P03"
	pgBadPassword       = "28P01"
	pgSerialization     = "40001"
	pgDeadlock          = "40P01"
	pgDiskFull          = "53100"
	pgTooManyConns      = "53300"
	pgLockNotAvailable  = "55P03"
	pgCanceled          = "57014" // by statement_timeout, or by somebody
	pgAdminShutdown     = "57P01"
	pgCrashShutdown     = "57P02"
	pgCannotConnect     = "57P03" // it starts, stops or recovers
	pgDatabaseDropped   = "57P04"
)

// pgCode returns the code of the error of PostgreSQL in err, or nothing.
func pgCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// isConflict says whether the transaction lost against another and would do so no more.
func isConflict(err error) bool {
	code := pgCode(err)
	return code == pgSerialization || code == pgDeadlock
}

// isLost says whether err is about the connection or the server, and not about what was asked of it.
func isLost(err error) bool {
	var lost *lostError
	if errors.As(err, &lost) {
		return true
	}
	code := pgCode(err)
	switch code {
	case pgReadOnly, pgTooManyConns, pgAdminShutdown, pgCrashShutdown, pgCannotConnect, pgDatabaseDropped, pgIdleInTransaction:
		return true
	}
	return strings.HasPrefix(code, "08")
}

// stale says whether err tells that the other connections to this server are of no use either.
func stale(err error) bool {
	switch pgCode(err) {
	case pgReadOnly, pgAdminShutdown, pgCrashShutdown:
		return true
	}
	return false
}

// mayRetry returns err if another attempt may succeed, and nil if not. What was sent last must not have been a commit.
func mayRetry(err error) error {
	var certificate *tls.CertificateVerificationError
	code := pgCode(err)
	switch {
	case err == nil,
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &certificate),
		code == pgDatabaseDropped, code == pgIdleInTransaction,
		strings.HasPrefix(code, "28"), strings.HasPrefix(code, "3D"), strings.HasPrefix(code, "42"): // who or what it is
		return nil
	case isConflict(err), isLost(err), errors.Is(err, driver.ErrBadConn):
		return err
	}
	return nil
}

// isUniquePostgres is IsUnique for an error of PostgreSQL, which names the constraint itself, and its columns only in the
// detail: Key (caller, key)=(…) already exists. The words around the brackets depend on the language of the server.
func isUniquePostgres(err *pgconn.PgError, constraint string) bool {
	if err.Code != pgUnique {
		return false
	}
	if constraint == "" || constraint == err.ConstraintName {
		return true
	}
	_, columns, ok := strings.Cut(err.Detail, "(")
	if !ok {
		return false
	}
	columns, _, ok = strings.Cut(columns, ")=(")
	if !ok {
		return false
	}
	var named []string
	for column := range strings.SplitSeq(columns, ", ") {
		named = append(named, err.TableName+"."+column)
	}
	return strings.Join(named, ", ") == constraint
}

// oneLine is err with its text on one line: that of several hosts is spread over several.
func oneLine(err error) error {
	if !strings.Contains(err.Error(), "\n") {
		return err
	}
	return &flatError{err}
}

type flatError struct{ err error }

func (e *flatError) Error() string { return strings.Join(strings.Fields(e.err.Error()), " ") }
func (e *flatError) Unwrap() error { return e.err }
