package sqldb

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

func TestOfSeveralHostsTheOneThatTakesWritesIsUsed(t *testing.T) {
	t.Parallel()
	primary := postgrestest.Start(t, postgrestest.Options{Settings: map[string]string{
		"synchronous_standby_names": "*", "synchronous_commit": "local", // for all but the note that must not be lost
	}})
	database := primary.Database(t)
	standby := primary.Standby(t)
	at := func(hosts string) URL {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = hosts
		return URL(u.String())
	}
	first, second := fmt.Sprintf("127.0.0.1:%d", primary.Port()), fmt.Sprintf("127.0.0.1:%d", standby.Port())
	db := openPG(t, at(second+","+first)) // the standby is asked first, and is not taken
	ctx := within(t, patience)
	err := db.Write(ctx, func(tx *Tx) error {
		return errors.Join(execIn(ctx, tx, `SET LOCAL synchronous_commit = remote_apply`), insert(ctx, tx, "before"))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(within(t, 2*time.Second), postgresOptions(at(second), notes()))
	if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.DeadlineExceeded {
		t.Errorf("a standby alone: Open returned %v", err)
	}

	primary.Kill(t)
	if err := db.Healthy(within(t, 200*time.Millisecond)); err == nil {
		t.Error("healthy with a standby alone")
	}
	promoted := make(chan time.Time, 1)
	go func() {
		standby.Promote(t)
		promoted <- time.Now()
	}()
	// The call that was under way gets through, within its deadline.
	if err := add(within(t, patience), db, "after"); err != nil {
		t.Errorf("over the failover: %v", err)
	}
	if took := time.Since(<-promoted); took > 5*time.Second {
		t.Errorf("the write came %s after the new server", took)
	}
	wantTexts(t, db, "before", "after")
	if err := db.Healthy(within(t, patience)); err != nil {
		t.Error(err)
	}
}
