package service

import (
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/machine"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// Cost is the processor time of what takes part. Where others use the machine too, it says what the rates would be without them.
type Cost struct{ service, client, database time.Duration }

// Used returns the cost so far: that of the service, of this process, which is the client, and of the database, where there is one.
func (s *Process) Used(server *postgres.Server) (c Cost, err error) {
	if c.service, err = machine.Used(s.PID()); err != nil {
		return c, err
	}
	if server != nil {
		if c.database, err = machine.Used(server.PID()); err != nil {
			return c, err
		}
	}
	c.client, err = machine.ProcessorTime()
	return c, err
}

// Plus returns the sum of both.
func (c Cost) Plus(o Cost) Cost {
	return Cost{c.service + o.service, c.client + o.client, c.database + o.database}
}

// Since returns what was used since before.
func (c Cost) Since(before Cost) Cost {
	return Cost{c.service - before.service, c.client - before.client, c.database - before.database}
}

// Each returns the microseconds of each of count calls, rows or events, as cells of a table below those of CostHeads.
func (c Cost) Each(count int) []string {
	micros := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/float64(count)) }
	cells := []string{micros(c.service), micros(c.client)}
	if c.database > 0 {
		cells = append(cells, micros(c.database))
	}
	return cells
}

// CostHeads heads the columns of Each.
func CostHeads(server *postgres.Server) []string {
	heads := []string{"µs of service", "of client"}
	if server != nil {
		heads = append(heads, "of database")
	}
	return heads
}
