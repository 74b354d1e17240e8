package faults

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// movedVariable is the environment variable that names the file with which the clock of a service is moved.
const movedVariable = "PROOF_CLOCK"

// movable are the edits that make a service whose clock is ahead of the machine's by what a file says, and whose timers
// keep to that clock. The rest of it is as it is shipped.
func movable() []Edit {
	const file = "kit/clock/clock.go"
	return []Edit{
		{file, `import "time"`, `import (
	"os"
	"time"
)`},
		{file, `func (system) Now() time.Time                         { return time.Now() }
func (system) After(d time.Duration) <-chan time.Time { return time.After(d) }`, `func (system) Now() time.Time { return time.Now().Add(ahead()) }

func (s system) After(d time.Duration) <-chan time.Time {
	due, c := s.Now().Add(d), make(chan time.Time, 1)
	go func() {
		for left := d; left > 0; left = due.Sub(s.Now()) {
			time.Sleep(min(left, 50*time.Millisecond))
		}
		c <- s.Now()
	}()
	return c
}

func ahead() time.Duration {
	text, err := os.ReadFile(os.Getenv("` + movedVariable + `"))
	if err != nil {
		panic(err)
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		panic(err)
	}
	return d
}`},
	}
}

// moved is a clock that is ahead of the machine's.
type moved struct {
	file  string
	ahead time.Duration
}

// A clock is walked, not torn: by a second at a time, each of which takes a moment.
const (
	stride = time.Second
	moment = 10 * time.Millisecond
)

func newMoved(dir string) (*moved, error) {
	m := &moved{file: filepath.Join(dir, "clock")}
	return m, m.write()
}

func (m *moved) write() error {
	next := m.file + ".next"
	if err := os.WriteFile(next, []byte(m.ahead.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, m.file)
}

// walk moves the clock on.
func (m *moved) walk(ctx context.Context, d time.Duration) error {
	for until := m.ahead + d; m.ahead < until; {
		m.ahead = min(m.ahead+stride, until)
		if err := m.write(); err != nil {
			return err
		}
		if err := sleep(ctx, moment); err != nil {
			return err
		}
	}
	return nil
}

// withClock returns the same bench with a build of the service whose clock is moved.
func (b *bench) withClock(ctx context.Context) (*bench, *moved, error) {
	clock, err := newMoved(b.dir)
	if err != nil {
		return nil, nil, err
	}
	edits := slices.Concat(b.edits, movable())
	binary, err := build(ctx, b.root, b.dir, b.service.Name+"-moved", b.service.Name, edits)
	if err != nil {
		return nil, nil, err
	}
	c := *b
	c.lab = b.lab.with(b.dir, binary, edits)
	c.extra = append(slices.Clone(b.extra), movedVariable+"="+clock.file)
	return &c, clock, nil
}
