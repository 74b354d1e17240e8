package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
)

func TestAConnectionKeepsABoundedNumberOfStatements(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	err := db.Write(t.Context(), func(tx *Tx) error {
		for i := range 3 * maxStatements {
			var got int
			if err := tx.QueryRowContext(t.Context(), fmt.Sprintf("SELECT %d", i)).Scan(&got); err != nil {
				return err
			}
			if got != i {
				t.Errorf("read %d, want %d", got, i)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	raw(t, db.engine.(*embedded).writer, func(c *conn) {
		if c.order.Len() != maxStatements || len(c.statements) != maxStatements {
			t.Errorf("%d and %d statements are kept", c.order.Len(), len(c.statements))
		}
	})
}

func TestOneStatementServesTwoLoopsAtOnce(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	for _, text := range []string{"a", "b", "c"} {
		if err := add(t.Context(), db, text); err != nil {
			t.Fatal(err)
		}
	}
	const query = `SELECT id FROM notes WHERE id > $1 ORDER BY id`
	pairs := 0
	err := db.Read(t.Context(), func(q Querier) error {
		outer, err := q.QueryContext(t.Context(), query, 0)
		if err != nil {
			return err
		}
		defer outer.Close()
		for outer.Next() {
			var id int
			if err := outer.Scan(&id); err != nil {
				return err
			}
			inner, err := q.QueryContext(t.Context(), query, id)
			if err != nil {
				return err
			}
			for inner.Next() {
				pairs++
			}
			if err := inner.Close(); err != nil {
				return err
			}
		}
		return outer.Err()
	})
	if err != nil || pairs != 3 {
		t.Errorf("%d pairs, %v", pairs, err)
	}
}

func TestAConnectionIsUsedAgainAfterAnyEndOfATransaction(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	var first *conn
	raw(t, db.engine.(*embedded).writer, func(c *conn) { first = c })
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		db.Write(ctx, func(tx *Tx) error {
			switch i % 4 {
			case 0:
				tx.ExecContext(ctx, "no statement")
			case 1:
				cancel()
				insert(ctx, tx, "a")
			case 2:
				return sql.ErrNoRows
			}
			return nil
		})
		cancel()
	}
	raw(t, db.engine.(*embedded).writer, func(c *conn) {
		if c != first || c.inTx || c.broken != nil || c.bad {
			t.Errorf("same connection: %v; in a transaction: %v, %v, %v", c == first, c.inTx, c.broken, c.bad)
		}
	})
}

// raw calls fn with a connection of the pool.
func raw(t *testing.T, db *sql.DB, fn func(*conn)) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Raw(func(dc any) error { fn(dc.(*conn)); return nil }); err != nil {
		t.Fatal(err)
	}
}

var _ driver.Connector = commitHook{}
