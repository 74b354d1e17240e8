package sqldb

import "testing"

// A commit waits for the disk and the standby where its transaction has a number and has written to the log.
func TestATransactionThatConfirmsWritesToTheLogAndToNoTable(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	ctx := within(t, patience)
	var before, after, end string
	var none, some bool
	if err := db.Write(ctx, func(tx *Tx) error {
		const look = `SELECT pg_current_wal_insert_lsn()::text, pg_current_xact_id_if_assigned() IS NULL`
		if err := tx.QueryRowContext(ctx, look).Scan(&before, &none); err != nil {
			return err
		}
		if err := tx.Confirm(ctx); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, look).Scan(&after, &some)
	}); err != nil {
		t.Fatal(err)
	}
	if !none || some || before == after {
		t.Errorf("before it has no number: %t, after it: %t; the log was at %s and then at %s", none, some, before, after)
	}
	if err := db.ReadOne(ctx, func(q Querier) error {
		return q.QueryRowContext(ctx, `SELECT pg_current_wal_flush_lsn()::text WHERE pg_current_wal_flush_lsn() >= $1::pg_lsn`, after).Scan(&end)
	}); err != nil {
		t.Errorf("once it is committed the log is not on the disk up to %s: %v", after, err)
	}
}

func TestOnSQLiteThereIsNothingToConfirm(t *testing.T) {
	t.Parallel()
	db := openDB(t, options(t.TempDir(), notes()))
	if err := db.Write(t.Context(), func(tx *Tx) error { return tx.Confirm(t.Context()) }); err != nil {
		t.Error(err)
	}
}
