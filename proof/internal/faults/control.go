package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// Control is a build of a service with a mistake in it. A harness that does not see the mistake proves nothing.
type Control struct {
	// Name says what the mistake is.
	Name string
	// Edits make the mistake. Nothing of it is written to the repository.
	Edits []Edit
	// Seen is what of an audit the mistake must show in, above zero.
	Seen func(Audit) int
	// Faults are the names of the faults under which it must be seen.
	Faults []string
}

// Edit replaces some text of a file of the repository, which must have it once.
type Edit struct{ File, Old, New string }

// tries is how often a fault is caused until the mistake shows: it may have no chance at one moment.
const tries = 3

// build builds the service from the repository at root, with some edits.
func build(ctx context.Context, root, dir, name, service string, edits []Edit) (binary string, err error) {
	if root, err = filepath.Abs(root); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, name)
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for n, e := range edits {
		path := filepath.Join(root, e.File)
		from := path
		if edited, ok := overlay.Replace[path]; ok {
			from = edited
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if count := strings.Count(string(text), e.Old); count != 1 {
			return "", fmt.Errorf("%s has %d times what a control replaces: %q", e.File, count, e.Old)
		}
		to := filepath.Join(dir, fmt.Sprintf("%s-%d.go", name, n))
		if err := os.WriteFile(to, []byte(strings.Replace(string(text), e.Old, e.New, 1)), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[path] = to
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, name+".overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", file, "-o", binary, "./services/"+service)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return binary, nil
}

// brokenBuilds breaks the builds that have a mistake, and counts those of which the mistake was seen.
func (b *bench) brokenBuilds(ctx context.Context) (Audit, string, error) {
	runs := 0
	for n, control := range b.service.Controls[:min(len(b.service.Controls), b.mistakes)] {
		binary, err := build(ctx, b.root, b.dir, fmt.Sprintf("%s-control-%d", b.service.Name, n), b.service.Name, control.Edits)
		if err != nil {
			return Audit{}, "", err
		}
		for _, name := range control.Faults[:min(len(control.Faults), b.builds)] {
			seen, err := b.breakBuild(ctx, n, control, binary, name)
			if errors.Is(err, ErrCannot) || errors.Is(err, postgres.ErrMissing) {
				continue // what this machine does not allow is missing in the figure of the fault
			}
			if err != nil {
				return Audit{}, "", fmt.Errorf("the build that %s: %s: %w", control.Name, name, err)
			}
			if seen > 0 {
				b.controlsSeen++
			}
			runs++
			fmt.Fprintf(b.detail, "\ta build that %s, %s: seen %d times\n", control.Name, name, seen)
		}
	}
	return Audit{}, fmt.Sprintf("%d runs, in %d of which the mistake was seen", runs, b.controlsSeen), ctx.Err()
}

// breakBuild causes one fault for one build, and returns how much of its mistake was seen.
func (b *bench) breakBuild(ctx context.Context, n int, control Control, binary, name string) (seen int, err error) {
	for try := 0; try < tries && seen == 0; try++ {
		dir, err := os.MkdirTemp(b.dir, fmt.Sprintf("control-%d-", n))
		if err != nil {
			return 0, err
		}
		// A bench of its own: what it counts is in no figure.
		c := &bench{lab: b.lab.with(dir, binary, control.Edits), effort: b.effort.control(), random: b.random, server: b.server, detail: b.detail}
		faults := c.faults()
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			return 0, fmt.Errorf("there is no fault %q", name)
		}
		a, _, err := faults[i].run(ctx)
		if err != nil {
			return 0, err
		}
		seen = control.Seen(a)
		if err := os.RemoveAll(dir); err != nil {
			return 0, err
		}
	}
	return seen, nil
}
