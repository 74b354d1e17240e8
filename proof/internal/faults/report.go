package faults

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// report prints the table.
func (b *bench) report() {
	tw := tabwriter.NewWriter(b.detail, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "fault\tacknowledged\tlost\tdoubled\telse wrong\tseconds\t")
	for _, s := range b.scenario {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%.1f\t%s\n", s.name, s.audit.Acknowledged, s.audit.Lost, s.audit.Doubled, len(s.audit.Wrong), s.took.Seconds(), s.note)
	}
	_ = tw.Flush() // as far as it goes
	for _, s := range b.scenario {
		for i, w := range s.audit.Wrong {
			if i == 20 {
				fmt.Fprintf(b.detail, "%s: and %d more\n", s.name, len(s.audit.Wrong)-i)
				break
			}
			fmt.Fprintf(b.detail, "%s: %s\n", s.name, strings.ReplaceAll(w, "\n", "\n\t"))
		}
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
	points := b.kills + b.syncKills + b.cuts + len(b.heal) + len(b.failover) + len(b.room) + b.syncs + b.effort.slowSyncs + 1
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
		of("failovers", float64(len(b.failover)), 1),
		of("failover_seconds", worst(b.failover), len(b.failover)),
		of("standby_acknowledged", float64(b.told), 1),
		of("power_cuts", float64(b.cuts), 1),
		of("control_lost", float64(b.controlLost), b.controls),
	}
	if len(b.service.Controls) > 0 {
		figures = append(figures, of("controls_seen", float64(b.controlsSeen), 1))
	}
	if b.service.Balanced {
		figures = append(figures, of("invariants", float64(b.total.Glances), points), of("ordered", float64(b.total.Ordered), points))
	}
	return figures
}
