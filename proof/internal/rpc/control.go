package rpc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// What a server is asked over its standard input, one line each. It answers with a report, a JSON object a line, and ends
// when the input does.
const (
	askUsage   = "usage"   // how things are
	askMemory  = "memory"  // the same, after all garbage was given back
	askPublish = "publish" // one event for all who watch
	askProfile = "profile" // begin a processor profile into the file that follows
	askWritten = "written" // end it, and write an allocation profile beside it
)

// report is how a server is, at one moment.
type report struct {
	// Address is where it listens.
	Address string `json:"address"`
	// At is the moment, of an event that of its publication, in nanoseconds since 1970.
	At int64 `json:"at"`
	// Mallocs is how many objects were ever allocated.
	Mallocs uint64 `json:"mallocs"`
	// CPU is the processor time that was ever used.
	CPU time.Duration `json:"cpu"`
	// Heap and Stacks are the memory that objects and stacks are in, in bytes, and RSS what the kernel counts.
	Heap   uint64 `json:"heap"`
	Stacks uint64 `json:"stacks"`
	RSS    uint64 `json:"rss"`
	// Goroutines is how many there are.
	Goroutines int `json:"goroutines"`
	// GOGC and MemoryLimit are the settings of the garbage collector, in percent and in bytes.
	GOGC        uint64 `json:"gogc"`
	MemoryLimit uint64 `json:"memory_limit"`
}

// controls answers what is asked on in until that ends.
func controls(address string, feed *feed, in io.Reader, out io.Writer) error {
	c := controller{address: address, feed: feed}
	answers := json.NewEncoder(out)
	r, err := c.report(time.Now())
	if err == nil {
		err = answers.Encode(r) // it serves
	}
	for lines := bufio.NewScanner(in); err == nil && lines.Scan(); {
		if r, err = c.answer(lines.Text()); err == nil {
			err = answers.Encode(r)
		}
	}
	return errors.Join(err, c.endProfile())
}

type controller struct {
	address string
	feed    *feed
	profile *os.File
}

func (c *controller) answer(line string) (report, error) {
	at := time.Now()
	command, file, _ := strings.Cut(line, " ")
	var err error
	switch command {
	case askUsage:
	case askMemory:
		debug.FreeOSMemory()
	case askPublish:
		at = c.feed.publish()
	case askProfile:
		if c.profile, err = os.Create(file); err == nil {
			err = pprof.StartCPUProfile(c.profile)
		}
	case askWritten:
		err = c.endProfile()
	default:
		err = fmt.Errorf("asked for %q", line)
	}
	if err != nil {
		return report{}, err
	}
	return c.report(at)
}

func (c *controller) endProfile() error {
	if c.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	name := c.profile.Name()
	err := c.profile.Close()
	c.profile = nil
	allocs, createErr := os.Create(name + ".allocs")
	if createErr != nil {
		return errors.Join(err, createErr)
	}
	return errors.Join(err, pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
}

func (c *controller) report(at time.Time) (report, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	used, err := machine.ProcessorTime()
	if err != nil {
		return report{}, err
	}
	rss, err := machine.Resident(os.Getpid())
	if err != nil {
		return report{}, err
	}
	gc := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(gc)
	return report{
		Address: c.address, At: at.UnixNano(), Mallocs: mem.Mallocs,
		CPU:  used,
		Heap: mem.HeapInuse, Stacks: mem.StackInuse, RSS: rss, Goroutines: runtime.NumGoroutine(),
		GOGC: gc[0].Value.Uint64(), MemoryLimit: gc[1].Value.Uint64(),
	}, nil
}
