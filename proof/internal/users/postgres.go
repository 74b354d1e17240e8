package users

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// settings are those that differ from what the harnesses' server has by itself. What decides on durability is as it is.
var settings = []string{"shared_buffers=512MB", "max_wal_size=4GB"}

// database is a database on a PostgreSQL server of ours.
type database struct {
	server *postgres.Server
	url    string
}

// create makes a database.
func create(ctx context.Context, server *postgres.Server) (*database, error) {
	url, err := server.Database(ctx)
	if err != nil {
		return nil, err
	}
	return &database{server: server, url: url}, nil
}

// environment is what makes a service use the database.
func (d *database) environment() string { return databaseVariable + "=" + d.url }

// run runs a program of PostgreSQL on the database and returns what it prints.
func (d *database) run(ctx context.Context, program string, args ...string) (string, error) {
	u, err := url.Parse(d.url)
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

// query runs a statement and returns what it prints.
func (d *database) query(ctx context.Context, statement string) (string, error) {
	return d.run(ctx, "psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--command="+statement)
}

// vacuum does what autovacuum would within the next minutes, so that it does not depend on when a run meets it.
func (d *database) vacuum(ctx context.Context) error {
	if _, err := d.query(ctx, "VACUUM (ANALYZE)"); err != nil {
		return err
	}
	_, err := d.query(ctx, "CHECKPOINT")
	return err
}

// rateLine is where pgbench prints its rate.
var rateLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)

// selects returns the transactions a second of `pgbench -S` with so many clients.
func (d *database) selects(ctx context.Context, clients int, during time.Duration) (float64, error) {
	out, err := d.run(ctx, "pgbench", "--no-vacuum", "--select-only", "--protocol=prepared", fmt.Sprintf("--client=%d", clients),
		fmt.Sprintf("--jobs=%d", min(clients, 2)), fmt.Sprintf("--time=%d", max(1, int(during.Seconds()))))
	if err != nil {
		return 0, err
	}
	m := rateLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench prints no rate:\n%s", out)
	}
	return strconv.ParseFloat(m[1], 64)
}
