package postgres

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Database is a database on a server of ours. Like the server it is for one goroutine.
type Database struct {
	// URL is where it is. It holds the password.
	URL string

	server *Server
}

// Create makes a database.
func (s *Server) Create(ctx context.Context) (*Database, error) {
	at, err := s.Database(ctx)
	if err != nil {
		return nil, err
	}
	return &Database{URL: at, server: s}, nil
}

// Run runs a program of PostgreSQL on the database, whose name is its last argument, and returns what it prints.
func (d *Database) Run(ctx context.Context, program string, args ...string) (string, error) {
	u, err := url.Parse(d.URL)
	if err != nil {
		return "", err
	}
	args = append(append(d.server.Flags(), args...), strings.TrimPrefix(u.Path, "/"))
	out, err := d.server.Command(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Query runs a statement and returns what it prints.
func (d *Database) Query(ctx context.Context, statement string) (string, error) {
	return d.Run(ctx, "psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--command="+statement)
}

// Vacuum does what autovacuum would within the next minutes, so that it does not depend on when a run meets it.
func (d *Database) Vacuum(ctx context.Context) error {
	if _, err := d.Query(ctx, "VACUUM (ANALYZE)"); err != nil {
		return err
	}
	_, err := d.Query(ctx, "CHECKPOINT")
	return err
}

// Drop removes the database. Nobody may be connected to it.
func (d *Database) Drop(ctx context.Context) error {
	_, err := d.Run(ctx, "dropdb")
	return err
}

// MakeSegments has the server make so many segments of its write-ahead log, of 16 MiB each, which it uses again and again from then
// on where min_wal_size lets it keep them. A server that is new makes each of them when it is first needed, and those who commit
// wait for that; one that has run for a while has made them.
func (d *Database) MakeSegments(ctx context.Context, count int) error {
	_, err := d.Query(ctx, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		PERFORM pg_logical_emit_message(false, '', ''); PERFORM pg_switch_wal(); END LOOP; END $$`, count))
	if err != nil {
		return err
	}
	_, err = d.Query(ctx, "CHECKPOINT") // it is this that makes old segments new ones
	return err
}

// rateLine is where pgbench prints its rate.
var rateLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)

// Bench runs pgbench with these arguments and returns the transactions a second.
func (d *Database) Bench(ctx context.Context, args ...string) (float64, error) {
	out, err := d.Run(ctx, "pgbench", args...)
	if err != nil {
		return 0, err
	}
	m := rateLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench prints no rate:\n%s", out)
	}
	return strconv.ParseFloat(m[1], 64)
}
