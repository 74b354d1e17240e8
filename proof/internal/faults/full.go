package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// volume is how large the disk is that gets full.
const volume = "128m"

// disk is a small file system of its own, which only what is run inside sees. It is gone when the process that holds it ends.
type disk struct {
	dir    string
	holder *exec.Cmd
	hold   io.Closer
	inside []string // what a program is run with to be inside
}

// mount makes a disk. It returns ErrCannot where the machine allows none.
func mount(ctx context.Context, dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var reasons []string
	for _, mode := range []struct{ unshare, enter []string }{
		{[]string{"--mount"}, []string{"--mount"}},
		{[]string{"--mount", "--user", "--map-root-user"}, []string{"--mount", "--user", "--preserve-credentials"}},
	} {
		d, err := hold(ctx, dir, mode.unshare)
		if err == nil {
			d.inside = append([]string{"nsenter", "--target", strconv.Itoa(d.holder.Process.Pid)}, mode.enter...)
			d.inside = append(d.inside, "--")
			return d, nil
		}
		reasons = append(reasons, err.Error())
	}
	return nil, fmt.Errorf("%w: no file system can be mounted: %s", ErrCannot, strings.Join(reasons, "; "))
}

// hold starts the process that holds the disk.
func hold(ctx context.Context, dir string, flags []string) (*disk, error) {
	const script = `mount -t tmpfs -o size=` + volume + `,mode=0700 concordat-proof "$0" && echo mounted && exec cat`
	d := &disk{dir: dir}
	d.holder = exec.CommandContext(ctx, "unshare", append(flags, "sh", "-c", script, dir)...)
	var complaint bytes.Buffer
	d.holder.Stderr = &complaint
	in, err := d.holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	d.hold = in
	out, err := d.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.holder.Start(); err != nil {
		return nil, err
	}
	said := make([]byte, len("mounted\n"))
	if _, err := io.ReadFull(out, said); err != nil {
		return nil, errors.Join(fmt.Errorf("unshare %s: %s", strings.Join(flags, " "), bytes.TrimSpace(complaint.Bytes())), in.Close(), d.holder.Wait())
	}
	return d, nil
}

// run runs a shell script inside, with the directory as $0.
func (d *disk) run(ctx context.Context, script string) error {
	args := slices.Concat(d.inside, []string{"sh", "-c", script, d.dir})
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// fill leaves so many KiB of the disk free.
func (d *disk) fill(ctx context.Context, left int) error {
	return d.run(ctx, fmt.Sprintf(`head -c %d /dev/zero >"$0/reserve" && { cat /dev/zero >"$0/filler" 2>/dev/null || true; } && rm "$0/reserve"`, left<<10))
}

// free makes room again.
func (d *disk) free(ctx context.Context) error { return d.run(ctx, `rm "$0/filler"`) }

func (d *disk) close() error {
	err := d.hold.Close()
	if werr := d.holder.Wait(); werr != nil && d.holder.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		err = errors.Join(err, werr)
	}
	return err
}

// full is how a call is answered while the disk is full.
const full = "ResourceExhausted STORAGE_FULL"

// diskFull fills the disk under load, uses the service meanwhile, and makes room again; every second time the service is killed
// while the disk is full.
func (b *bench) diskFull(ctx context.Context) (all Audit, note string, err error) {
	dir := b.fresh("full/disk")
	d, err := mount(ctx, dir)
	if err != nil {
		return all, "", err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	refused := &answers{counts: map[string]int{}}
	for n := range b.fills {
		s := store{data: fmt.Sprintf("%s/%d", dir, n)}
		a, err := b.fillOnce(ctx, d, s, n, refused)
		all.add(a)
		if err != nil {
			return all, "", err
		}
		if err := d.run(ctx, `rm -r "$0"/*`); err != nil {
			return all, "", err
		}
	}
	return all, fmt.Sprintf("%d times full; %s", b.fills, refused), ctx.Err()
}

// answers counts how calls were answered that did not succeed.
type answers struct {
	mu     sync.Mutex
	on     bool
	counts map[string]int
}

// calls implements Calls.
func (f *answers) calls() func(error) {
	return func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil && f.on && !gone(err) {
			f.counts[reason(err)]++
		}
	}
}

func (f *answers) set(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = on
}

// others returns the answers that are not expected.
func (f *answers) others(expected ...string) (other []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for answer, n := range f.counts {
		if !slices.Contains(expected, answer) {
			other = append(other, fmt.Sprintf("%d × %s", n, answer))
			delete(f.counts, answer) // told once
		}
	}
	return other
}

func (f *answers) count(answer string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[answer]
}

func (f *answers) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	for answer, n := range f.counts {
		parts = append(parts, fmt.Sprintf("%d × %s", n, answer))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func (b *bench) fillOnce(ctx context.Context, d *disk, s store, n int, refused *answers) (all Audit, err error) {
	when := fmt.Sprintf("full %d", n+1)
	w, cursor := b.book(refused.calls), &Cursor{}
	p, err := b.start(ctx, s, false, d.inside...)
	if err != nil {
		return all, err
	}
	defer func() { _ = p.kill() }() // where it went on to the end, it has been stopped
	if err := w.Begin(ctx, p.conn); err != nil {
		return all, err
	}
	had := refused.count(full)
	if err := under(ctx, w, p, func(ctx context.Context) error {
		if err := sleep(ctx, 200*time.Millisecond+time.Duration(b.random.Int64N(int64(200*time.Millisecond)))); err != nil {
			return err
		}
		if err := b.readable(ctx, p, w); err != nil {
			return err
		}
		refused.set(true)
		if err := d.fill(ctx, 4*b.random.IntN(64)); err != nil {
			return err
		}
		// What is allocated already can be written for a while, so it goes on until a write is refused, and some time beyond.
		begun := time.Now()
		for until := begun.Add(b.underFault); time.Now().Before(until); {
			if refused.count(full) == had && time.Since(begun) < patience {
				until = time.Now().Add(b.underFault)
			}
			if err := w.Look(ctx, p.conn); err != nil && ctx.Err() == nil {
				all.wrong("%s: a read while the disk is full: %v", when, err)
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
		if n%2 == 1 {
			return p.kill()
		}
		return nil
	}); err != nil {
		return all, err
	}
	refused.set(false)
	if refused.count(full) == had {
		all.wrong("%s: no write was refused", when)
	}
	for _, other := range refused.others(full) {
		all.wrong("%s: writes while the disk is full: %s", when, other)
	}
	if err := d.free(ctx); err != nil {
		return all, err
	}
	if n%2 == 1 {
		if p, err = b.start(ctx, s, false, d.inside...); err != nil {
			return all, fmt.Errorf("after a kill while the disk was full: %w", err)
		}
	} else {
		b.recover(ctx, p, w, &all, when)
	}
	b.settle(ctx, p, w, &all, when)
	all.add(b.audit(ctx, p, w, always(), cursor, when))
	b.order(w, &all, when)
	b.inspect(ctx, p, s, &all, when, d.inside...)
	return all, ctx.Err()
}

// readable waits until there is something to read.
func (b *bench) readable(ctx context.Context, p *process, w Workload) error {
	for begun := time.Now(); ; {
		err := w.Look(ctx, p.conn)
		if err == nil || time.Since(begun) > patience {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// recover waits until something can be written again, and notes how long that took.
func (b *bench) recover(ctx context.Context, p *process, w Workload, a *Audit, when string) {
	begun := time.Now()
	for {
		err := w.Probe(ctx, p.conn)
		if err == nil {
			b.room = append(b.room, time.Since(begun).Seconds())
			return
		}
		if time.Since(begun) > patience || ctx.Err() != nil {
			b.room = append(b.room, patience.Seconds())
			a.wrong("%s: no write succeeds once there is room: %v", when, err)
			return
		}
		_ = sleep(ctx, pause) // ctx is looked at above
	}
}
