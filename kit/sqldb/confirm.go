package sqldb

import (
	"context"
	"fmt"
)

// Confirm makes the commit of a Write that has written nothing wait for the disk, and for the standby where the server has
// one to wait for, as a commit that has written something does. So whoever is told what the transaction has read, such as
// the outcome of an earlier call, is told what will not be lost: PostgreSQL shows others a commit whose wait for the standby
// was cancelled, and the wait of a later one covers it. On SQLite what can be read is on the disk.
func (t *Tx) Confirm(ctx context.Context) error {
	if t.engine != PostgreSQL {
		return nil
	}
	// It writes some 60 bytes to the log, and to no table.
	if _, err := t.ExecContext(ctx, `SELECT pg_logical_emit_message(true, 'concordat', '')`); err != nil {
		return fmt.Errorf("confirm what was read: %w", err)
	}
	return nil
}
