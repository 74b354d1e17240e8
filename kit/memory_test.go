package kit

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestTheCollectorIsSetByWhatTheMachineHasUnlessItIsToldOtherwise(t *testing.T) {
	const meminfo = "MemTotal:       1048576 kB\nMemFree:         1000 kB\n" // 1 GiB
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, tc := range map[string]struct {
		env     map[string]string
		root    fstest.MapFS
		percent int
		limit   int64
	}{
		"a machine":                         {nil, fstest.MapFS{"proc/meminfo": file(meminfo)}, 400, 768 << 20},
		"a container":                       {nil, fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory.max": file("268435456\n")}, 400, 192 << 20},
		"a container without a limit":       {nil, fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory.max": file("max\n")}, 400, 768 << 20},
		"a limit that was set":              {map[string]string{"GOMEMLIMIT": "1"}, fstest.MapFS{"proc/meminfo": file(meminfo)}, 400, 7},
		"a percentage that was set":         {map[string]string{"GOGC": "1"}, fstest.MapFS{"proc/meminfo": file(meminfo)}, 100, 7},
		"a machine that says nothing of it": {nil, fstest.MapFS{}, 100, 7},
	} {
		t.Run(name, func(t *testing.T) {
			percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(7)
			defer func() {
				debug.SetGCPercent(percent)
				debug.SetMemoryLimit(limit)
			}()
			tuneMemory(func(name string) string { return tc.env[name] }, tc.root)
			gotPercent, gotLimit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
			if gotPercent != tc.percent || gotLimit != tc.limit {
				t.Errorf("percent %d, limit %d; want %d and %d", gotPercent, gotLimit, tc.percent, tc.limit)
			}
		})
	}
}

func TestTheSlackOfALargeHeapIsBounded(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 6 << 20: 400, 12 << 20: 200, 24 << 20: 100, 1 << 30: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", live, got, want)
		}
	}
}
