package users

import (
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// cost is the processor time of what takes part. Where others use the machine too, it says what the rates would be without them.
type cost struct{ service, database, client time.Duration }

// used returns the cost so far, with that of one of the services.
func (p *pair) used(s *service) (c cost, err error) {
	if c.service, err = machine.Used(s.cmd.Process.Pid); err != nil {
		return c, err
	}
	if p.server != nil {
		if c.database, err = machine.Used(p.server.PID()); err != nil {
			return c, err
		}
	}
	c.client, err = machine.ProcessorTime()
	return c, err
}

// since returns the microseconds of each of count calls, rows or events since before, as cells of a table.
func (c cost) since(before cost, count int) []string {
	micros := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/float64(count)) }
	cells := []string{micros(c.service - before.service), micros(c.client - before.client)}
	if c.database > 0 {
		cells = append(cells, micros(c.database-before.database))
	}
	return cells
}

// costs heads the columns of since.
func (p *pair) costs() []string {
	heads := []string{"µs of service", "of client"}
	if p.server != nil {
		heads = append(heads, "of database")
	}
	return heads
}
