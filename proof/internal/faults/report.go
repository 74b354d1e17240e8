package faults

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// columns are those of the table.
const columns = "%-28s %12v %6v %8v %11v %8v  %s\n"

// mostTold is how many of the things that are not as they must be are printed of each fault.
const mostTold = 20

// heading prints what the table is about.
func (b *bench) heading(seed uint64) {
	fmt.Fprintf(b.detail, "\nfaults of %s, seed %d\n", b.service.Name, seed)
	fmt.Fprintf(b.detail, columns, "fault", "acknowledged", "lost", "doubled", "else wrong", "seconds", "")
}

// line prints what came of one fault.
func (b *bench) line(name string, a Audit, took time.Duration, note string) {
	fmt.Fprintf(b.detail, columns, name, a.Acknowledged, a.Lost, a.Doubled, len(a.Wrong), fmt.Sprintf("%.1f", took.Seconds()), note)
	for i, w := range a.Wrong {
		if i == mostTold {
			fmt.Fprintf(b.detail, "\tand %d more\n", len(a.Wrong)-i)
			break
		}
		fmt.Fprintf(b.detail, "\t%s\n", strings.ReplaceAll(w, "\n", "\n\t"))
	}
}

func (b *bench) figures(missing map[string]bool) []figure.Figure {
	of := func(name string, value float64, runs int) figure.Figure {
		if missing[name] {
			value, runs = math.NaN(), 0
		}
		return figure.Figure{Name: "faults." + b.service.Name + "_" + name, Value: value, Runs: runs}
	}
	worst := func(values []float64) float64 {
		value := math.NaN()
		for i, v := range values {
			if i == 0 || v > value {
				value = v
			}
		}
		return value
	}
	points := b.kills + b.syncKills + b.cuts + len(b.heal) + len(b.failover) + len(b.room) + b.away + b.replicaRounds + b.syncs + b.effort.slowSyncs + 1
	figures := []figure.Figure{
		of("lost_acknowledged", float64(b.total.Lost), points),
		of("doubled", float64(b.total.Doubled), points),
		of("else_wrong", float64(len(b.total.Wrong)), points),
		of("kills", float64(b.kills), 1),
		of("sync_kills", float64(b.syncKills), 1),
		of("disk_full_seconds", worst(b.room), len(b.room)),
		of("failed_syncs", float64(b.syncs), 1),
		of("slow_syncs", float64(b.effort.slowSyncs), 1),
		of("pg_heal_seconds", worst(b.heal), len(b.heal)),
		of("paced_restarts", float64(b.pacedRestarts), 1),
		of("failovers", float64(len(b.failover)), 1),
		of("failover_seconds", worst(b.failover), len(b.failover)),
		of("standby_acknowledged", float64(b.told), 1),
		of("power_cuts", float64(b.cuts), 1),
		of("control_lost", float64(b.controlLost), b.controls),
	}
	if len(b.service.Controls) > 0 {
		figures = append(figures, of("controls_seen", float64(b.controlsSeen), 1))
	}
	if b.service.Faults != nil {
		figures = append(figures, of("auth_outages", float64(b.away), 1), of("auth_heal_seconds", worst(b.back), len(b.back)),
			of("replica_rounds", float64(b.replicaRounds), 1))
	}
	if b.service.Balanced {
		figures = append(figures, of("invariants", float64(b.total.Glances), points), of("ordered", float64(b.total.Ordered), points))
	}
	return figures
}
