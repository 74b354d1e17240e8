// Package start measures how long standalone takes from exec to the moment at which every service is healthy.
package start

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// Measure builds standalone from the repository at root and starts it runs times, each once on an empty directory and
// once on the one that this left behind.
func Measure(ctx context.Context, root string, runs int) ([]figure.Figure, error) {
	dir, err := os.MkdirTemp("", "concordat-start-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "standalone")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./services/standalone")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build standalone: %w\n%s", err, out)
	}
	var first, again []float64
	for i := range runs {
		state := filepath.Join(dir, fmt.Sprintf("state-%d", i))
		for _, into := range []*[]float64{&first, &again} {
			took, err := once(ctx, binary, state)
			if err != nil {
				return nil, err
			}
			*into = append(*into, float64(took.Microseconds())/1000)
		}
	}
	return []figure.Figure{figure.Median("start.ready", again), figure.Median("start.first", first)}, nil
}

// once starts the binary and returns how long it took until it said that all is ready, then stops it.
func once(ctx context.Context, binary, state string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args := []string{"--dir", state}
	for _, listener := range []string{"auth-listen", "users-listen", "payments-listen", "gateway-http", "gateway-grpc"} {
		args = append(args, "--"+listener, "127.0.0.1:0")
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stderr = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Concordat is ready") {
			took = time.Since(started)
			break
		}
	}
	if took == 0 {
		return 0, errors.Join(errors.New("standalone ended before it was ready"), cmd.Wait())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	for lines.Scan() { // until it has closed its output
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("standalone did not stop cleanly: %w", err)
	}
	return took, nil
}
