// Package machine says what a run is measured on, and keeps its processes on the processors that are meant for them.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Processor returns what the machine calls its processors, and how many there are.
func Processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(value))
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU())
}

// LoadAverage returns how busy the machine was in the last minute.
func LoadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
