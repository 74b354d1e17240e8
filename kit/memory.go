package kit

import (
	"bufio"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what is in use before it is collected: a server that answers from a small heap
// otherwise spends a sixth of its processor on collecting it (docs/figures.md).
const gcPercent = 400

// maxSlack is how much gcPercent lets a heap grow at most, as long as that is no less than the heap has in use: what makes a
// small heap cheap is that there is room between two collections, not that there is four times what is in use.
const maxSlack = 24 << 20

// tuneMemory sets the collector of garbage for a server, as far as GOGC and GOMEMLIMIT do not say otherwise. The limit, three
// quarters of what the machine or its control group has, keeps the generous percentage from growing a large heap beyond it.
func tuneMemory(getenv func(string) string, root fs.FS) {
	if getenv("GOGC") == "" {
		if limit := memory(root) / 4 * 3; limit > 0 {
			debug.SetGCPercent(gcPercent)
			(&slack{percent: gcPercent}).watch()
			if getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(limit)
			}
		}
	}
}

// slack keeps the percentage of the collector such that the heap grows by maxSlack at most.
type slack struct{ percent int }

// watch looks at the heap after each collection, for as long as the process runs.
func (s *slack) watch() {
	// The next collection finds that nobody has it.
	sentinel := &struct{ s *slack }{s}
	runtime.SetFinalizer(sentinel, func(*struct{ s *slack }) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if p := percentFor(live[0].Value.Uint64()); p < s.percent*7/8 || p > s.percent*8/7 {
			// It stops the world for a moment, so it is not done for a trifle.
			s.percent = p
			debug.SetGCPercent(p)
		}
		s.watch()
	})
}

// percentFor returns the percentage for a heap with so many bytes in use.
func percentFor(live uint64) int {
	return int(min(gcPercent, max(100, maxSlack*100/max(live, 1))))
}

// memory returns how many bytes of memory there are: the machine's, or fewer where a control group (v2) says so; 0 where
// that cannot be told.
func memory(root fs.FS) int64 {
	total := int64(0)
	if f, err := root.Open("proc/meminfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
				kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				if err == nil {
					total = kib << 10
				}
				break
			}
		}
	}
	if text, err := fs.ReadFile(root, "sys/fs/cgroup/memory.max"); err == nil {
		if most, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && (total == 0 || most < total) {
			total = most
		}
	}
	return total
}

// machine is the files of the machine.
func machine() fs.FS { return os.DirFS("/") }
