package review

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// A measurement is one run of the review: its own and that of all that it starts.
type measurement struct {
	wall      time.Duration
	processor time.Duration // what it and every child that it waited for used, of the system too
	resident  uint64        // bytes, the most that all of its processes had at once
	printed   string
}

// String prints a measurement.
func (m measurement) String() string {
	return fmt.Sprintf("%.2f s, %.2f s of processor, %d MiB", m.wall.Seconds(), m.processor.Seconds(), m.resident>>20)
}

// between is how often the memory of the processes is looked at.
const between = 10 * time.Millisecond

// measure runs the review. That it says no is a result; that it could not tell is an error.
func (r *run) measure(ctx context.Context, cache string, args ...string) (m measurement, err error) {
	cmd := exec.CommandContext(ctx, r.program, args...)
	cmd.Dir, cmd.Env = r.dir, append(append(os.Environ(), r.env...), "XDG_CACHE_HOME="+cache)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ticker := time.NewTicker(between)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-ticker.C:
			m.resident = max(m.resident, machine.ResidentWithChildren(cmd.Process.Pid))
		}
	}
	m.wall, m.printed = time.Since(began), out.String()
	state := cmd.ProcessState
	m.processor = state.UserTime() + state.SystemTime()
	if used, ok := state.SysUsage().(*syscall.Rusage); ok {
		m.resident = max(m.resident, uint64(used.Maxrss)<<10) // the largest of the processes alone, which no sample misses
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && failed.ExitCode() == 1 {
		err = nil
	}
	if err != nil {
		return m, fmt.Errorf("review %v: %w\n%s%s", args, err, &problems, m.printed)
	}
	return m, nil
}

// check holds a report against what was done to the contract: a review that is fast and finds nothing is none.
func (c *contract) check(printed string, consumers bool) error {
	var report struct {
		Findings []struct {
			Rule, Element string
			Consumers     struct {
				Verdict string
				Uses    []json.RawMessage
			}
		}
		Analysed struct {
			Packages int
		}
	}
	if err := json.Unmarshal([]byte(printed), &report); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	for _, f := range report.Findings {
		if f.Rule != c.rule || f.Element != c.element {
			continue
		}
		if consumers && (f.Consumers.Verdict != "breaks compilation" || len(f.Consumers.Uses) < c.uses) {
			return fmt.Errorf("%s of %s: %d uses, verdict %q; want at least %d that no longer compile", f.Rule, f.Element, len(f.Consumers.Uses), f.Consumers.Verdict, c.uses)
		}
		return nil
	}
	return fmt.Errorf("%s of %s was not found", c.rule, c.element)
}

// reviews reviews both contracts, turn by turn.
func (r *run) reviews(ctx context.Context, ours, large *contract) ([]figure.Figure, error) {
	kept := filepath.Join(r.dir, "kept")
	turns := []struct {
		name      string
		of        *contract
		cache     string // empty: another one each time
		consumers bool
		rounds    int
	}{
		{"ours, one baseline, no consumers", ours, kept, false, 7},
		{"ours, with consumers, the base known", ours, kept, true, 7},
		{"ours, with consumers, a new base", ours, "", true, 3},
		{"large, with consumers, a new base", large, "", true, 3},
		{"large, one baseline, no consumers", large, kept, false, 3},
	}
	all := make([][]measurement, len(turns))
	rounds := 7
	if r.opts.Quick {
		rounds = 1
	}
	once := func(n int, cache string) (measurement, error) {
		turn := turns[n]
		args := []string{"--dir", turn.of.dir, "--base", turn.of.base, "--format", "json"}
		if !turn.consumers {
			args = append(args, "--no-consumers")
		}
		m, err := r.measure(ctx, cache, args...)
		if err == nil {
			err = turn.of.check(m.printed, turn.consumers)
		}
		if err != nil {
			return m, fmt.Errorf("%s: %w", turn.name, err)
		}
		return m, nil
	}
	// Before anything is measured, Go has built what the code of both needs of others, and the base of ours is known.
	for _, n := range []int{1, 3} {
		first, err := once(n, kept)
		if err != nil {
			return nil, err
		}
		r.out.Line("%s, the first time: %s", turns[n].name, first)
	}
	for round := range rounds {
		for i := range turns {
			n := (i + round) % len(turns) // another order in each round
			if round >= turns[n].rounds {
				continue
			}
			cache := turns[n].cache
			if cache == "" {
				cache = filepath.Join(r.dir, fmt.Sprintf("new-%d-%d", n, round))
			}
			m, err := once(n, cache)
			if err != nil {
				return nil, err
			}
			all[n] = append(all[n], m)
		}
	}
	rows := [][]string{{"", "runs", "s", "s of processor", "MiB"}}
	for n, turn := range turns {
		rows = append(rows, []string{turn.name, fmt.Sprint(len(all[n])), show(all[n], seconds, "%.2f"), show(all[n], processor, "%.2f"), show(all[n], mebibytes, "%.0f")})
	}
	r.out.Table("reviews, medians (least to most)", rows)
	return []figure.Figure{
		figure.Median("review.own", values(all[1], seconds)),
		figure.Median("review.own_new_base", values(all[2], seconds)),
		figure.Median("review.own_one_baseline", values(all[0], seconds)),
		figure.Median("review.large", values(all[3], seconds)),
		figure.Median("review.large_memory", values(all[3], mebibytes)),
	}, nil
}

func seconds(m measurement) float64   { return m.wall.Seconds() }
func processor(m measurement) float64 { return m.processor.Seconds() }
func mebibytes(m measurement) float64 { return float64(m.resident) / (1 << 20) }

func values(all []measurement, of func(measurement) float64) []float64 {
	list := make([]float64, len(all))
	for n, m := range all {
		list[n] = of(m)
	}
	return list
}

func show(all []measurement, of func(measurement) float64, format string) string {
	list := values(all, of)
	return fmt.Sprintf(format+" ("+format+" to "+format+")", figure.Median("", list).Value, slices.Min(list), slices.Max(list))
}
