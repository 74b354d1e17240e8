package postgrestest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// count makes the table if need be, adds a row and returns how many there are.
func count(t *testing.T, url string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var n int
	if _, err := conn.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS rows (); INSERT INTO rows DEFAULT VALUES`); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM rows`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for range 2 {
		if n := count(t, postgrestest.Database(t)); n != 1 {
			t.Errorf("%d rows in a new database", n)
		}
	}
}

func TestAServerKeepsItsDataAndItsAddressOverAnyEnd(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t, postgrestest.Options{Durable: true})
	url := s.Database(t)
	want := 1
	for _, end := range []func(testing.TB){s.Stop, s.Kill, s.Kill} {
		if n := count(t, url); n != want {
			t.Errorf("%d rows, want %d", n, want)
		}
		end(t)
		if s.Running() {
			t.Error("it still runs")
		}
		s.Restart(t)
		want++
	}
	if n := count(t, url); n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
}

func TestSettingsReachTheServer(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t, postgrestest.Options{Settings: map[string]string{"max_connections": "7"}})
	conn, err := pgx.Connect(t.Context(), s.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for name, want := range map[string]string{"max_connections": "7", "fsync": "off"} {
		var got string
		if err := conn.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}
