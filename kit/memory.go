package kit

import (
	"bufio"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what is in use before it is collected: a server that answers from a small heap
// otherwise spends a sixth of its processor on collecting it (docs/figures.md).
const gcPercent = 400

// tuneMemory sets the collector of garbage for a server, as far as GOGC and GOMEMLIMIT do not say otherwise. The limit, three
// quarters of what the machine or its control group has, keeps the generous percentage from growing a large heap beyond it.
func tuneMemory(getenv func(string) string, root fs.FS) {
	if getenv("GOGC") == "" {
		if limit := memory(root) / 4 * 3; limit > 0 {
			debug.SetGCPercent(gcPercent)
			if getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(limit)
			}
		}
	}
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
