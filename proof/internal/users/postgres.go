package users

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// settings are those that differ from what the harnesses' server has by itself. What decides on durability is as it is.
var settings = []string{"shared_buffers=512MB", "max_wal_size=4GB"}

// selectRate returns the transactions a second of `pgbench -S` with so many clients.
func selectRate(ctx context.Context, d *postgres.Database, clients int, during time.Duration) (float64, error) {
	return d.Bench(ctx, "--no-vacuum", "--select-only", "--protocol=prepared", fmt.Sprintf("--client=%d", clients),
		fmt.Sprintf("--jobs=%d", min(clients, 2)), fmt.Sprintf("--time=%d", max(1, int(during.Seconds()))))
}
