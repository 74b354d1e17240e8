package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/powercut"
)

// recorded is a store of which is recorded what happens to it.
type recorded struct {
	store
	dir    string // of all of it
	before string // a copy of the directory from before
	trace  string // the record
	files  []string
	loaded time.Time // when the load had ended
}

// place returns a store that is not there yet.
func (b *bench) place(name string) *recorded {
	dir := b.fresh(name)
	r := &recorded{store: store{data: filepath.Join(dir, "data")}, dir: dir, before: filepath.Join(dir, "before"), trace: filepath.Join(dir, "trace")}
	for _, f := range b.service.Files {
		r.files = append(r.files, filepath.Join(r.data, f))
	}
	return r
}

// prepare makes a store that has its schema, and a copy of it: the disk at the begin of a recording.
func (b *bench) prepare(ctx context.Context, w Workload, name string) (*recorded, error) {
	r := b.place(name)
	p, err := b.start(ctx, r.store, false)
	if err != nil {
		return nil, err
	}
	if err := w.Begin(ctx, p.conn); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	return r, os.CopyFS(r.before, os.DirFS(r.data))
}

// command returns the program that records what the service does, with more arguments of its own.
func (r *recorded) command(more ...string) []string {
	return slices.Concat([]string{"strace"}, powercut.Arguments(r.trace, append([]string{r.data}, r.files...)...), more)
}

// read reads the record.
func (r *recorded) read() (*powercut.Recording, error) {
	f, err := os.Open(r.trace)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	recording, err := powercut.Read(f)
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	return recording, nil
}

// record starts a service for the first time, on an empty directory, and loads it, while what it does to its files is recorded. It
// returns when the service had been made ready.
func (b *bench) record(ctx context.Context, w Workload, name string) (r *recorded, recording *powercut.Recording, ready time.Time, err error) {
	r = b.place(name)
	if err := errors.Join(os.MkdirAll(r.data, 0o700), os.MkdirAll(r.before, 0o700)); err != nil {
		return nil, nil, ready, err
	}
	p, err := b.start(ctx, r.store, true, r.command()...)
	if err != nil {
		return nil, nil, ready, err
	}
	if err := w.Begin(ctx, p.conn); err != nil {
		return nil, nil, ready, errors.Join(err, p.kill())
	}
	ready = time.Now()
	recording, err = b.loaded(ctx, w, r, p)
	return r, recording, ready, err
}

// lone is how many writes follow the load of a recording, each after the answer to the one before. Under load callers may wait for more
// than one sync throughout, and then no acknowledgement stands on one sync alone, as unsynced needs; of the lone ones each does, but for
// the last and one that meets a checkpoint.
const lone = 8

// loaded loads a service that is recorded, kills it when it has nothing to do any more, and returns the record.
func (b *bench) loaded(ctx context.Context, w Workload, r *recorded, p *process) (*powercut.Recording, error) {
	err := under(ctx, w, p, func(ctx context.Context) error { return sleep(ctx, b.recorded) })
	r.loaded = time.Now()
	for n := 0; n < lone && err == nil; n++ { // the first takes its turn after what was in flight
		err = w.Probe(ctx, p.conn)
	}
	if err := errors.Join(err, p.kill()); err != nil {
		return nil, err
	}
	recording, err := r.read()
	if err != nil {
		return nil, err
	}
	return recording, b.same(r, recording)
}

// powerCuts cuts the power at moments of one recording and looks at what is left.
func (b *bench) powerCuts(ctx context.Context) (all Audit, note string, err error) {
	if err := b.canTrace(); err != nil {
		return all, "", err
	}
	w := b.book(nil)
	r, recording, ready, err := b.record(ctx, w, "cut")
	if err != nil {
		return all, "", err
	}
	if recording.Syncs() == 0 {
		return all, "", errors.New("nothing was synced: the record is not of the service's files")
	}
	// Some of the moments are in the first start, when nothing has been acknowledged: the service must start again.
	first := 0
	for first < recording.Events() && recording.Before(first).Before(ready) {
		first++
	}
	moments := make([]int, b.effort.cuts)
	for i := range moments {
		if i%5 == 4 {
			moments[i] = b.random.IntN(max(first, 1))
		} else {
			moments[i] = first + b.random.IntN(recording.Events()+1-first)
		}
	}
	slices.Sort(moments)
	all, err = b.cutAt(ctx, r, recording, w, moments, func() { b.cuts++ })
	if err != nil {
		return all, "", err
	}
	seen, err := b.unsynced(ctx, r, recording, w, &all)
	return all, fmt.Sprintf("%d moments, some of them in the first start, each with all unsynced data lost and with some of it, torn; %d syncs, %.0f MB written; %s", len(moments),
		recording.Syncs(), float64(recording.Written())/1e6, seen), errors.Join(err, os.RemoveAll(r.dir))
}

// control does the same to a service whose syncs do nothing. It must lose.
func (b *bench) control(ctx context.Context) (all Audit, note string, err error) {
	if err := b.canTrace(); err != nil {
		return all, "", err
	}
	w := b.book(nil)
	r, err := b.prepare(ctx, w, "control")
	if err != nil {
		return all, "", err
	}
	p, err := b.start(ctx, r.store, true, r.command("-e", "inject=fsync,fdatasync:retval=0")...)
	if err != nil {
		return all, "", err
	}
	recording, err := b.loaded(ctx, w, r, p)
	if err != nil {
		return all, "", err
	}
	moments := make([]int, b.controls)
	for i := range moments {
		moments[i] = recording.Events() * (i + 1) / len(moments)
	}
	all, err = b.cutAt(ctx, r, recording, w, moments, func() {})
	b.controlLost = all.Lost
	all.Wrong = nil // what is torn at will is not as it must be
	return all, fmt.Sprintf("%d moments; the syncs did nothing", len(moments)), errors.Join(err, os.RemoveAll(r.dir))
}

// windowsOf returns the moments at which something was acknowledged after a sync and before the next one, that was asked for after the
// one before had begun: no other sync can have made that durable. They are the events of the end of the sync and of that of the next.
func windowsOf(recording *powercut.Recording, w Workload) (windows [][2]int) {
	syncs := recording.SyncSpans()
	for i := 1; i < len(syncs)-1; i++ {
		since, end, next := recording.Before(syncs[i-1].Begin), syncs[i].End, syncs[i+1].End
		if w.Acknowledged(since, recording.Before(end)) < w.Acknowledged(since, recording.Before(next)) {
			windows = append(windows, [2]int{end, next})
		}
	}
	return windows
}

// unsynced checks the harness itself: it cuts the power at some of the windows, with the sync before undone. Each time what only that
// has made durable must be seen as lost. Every other one is under load, where there is such. It returns a note.
func (b *bench) unsynced(ctx context.Context, r *recorded, recording *powercut.Recording, w Workload, all *Audit) (note string, err error) {
	windows := windowsOf(recording, w)
	if len(windows) == 0 {
		all.wrong("nothing was acknowledged between two syncs: what is acknowledged is not what was synced")
		return "", nil
	}
	busy := slices.DeleteFunc(slices.Clone(windows), func(w [2]int) bool { return recording.Before(w[1]).After(r.loaded) })
	lost, underLoad := 0, 0
	for n := range b.controls {
		from := windows
		if n%2 == 0 && len(busy) > 0 {
			from = busy
			underLoad++
		}
		window := from[b.random.IntN(len(from))]
		d, err := powercut.Load(r.before, b.service.Volatile)
		if err != nil {
			return "", err
		}
		if err := errors.Join(d.At(r.data).Play(recording, 0, window[0]), d.Play(recording, window[0]+1, window[1])); err != nil {
			return "", err
		}
		s := store{data: filepath.Join(r.dir, "unsynced")}
		if err := d.WriteTo(s.data, powercut.Lost, b.random); err != nil {
			return "", err
		}
		a := b.reopen(ctx, s, w, recording.Before(window[1]), "without the last sync")
		if a.Lost == 0 && ctx.Err() == nil {
			return "", fmt.Errorf("without the sync at event %d nothing is lost at event %d: the harness sees no loss of a single transaction: %v", window[0], window[1], a.Wrong)
		}
		lost += a.Lost
		if err := errors.Join(os.RemoveAll(s.data), ctx.Err()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("without its last sync, %d times, %d of them under load, %d lost", b.controls, underLoad, lost), nil
}

// cutAt cuts the power at the moments, which are sorted, both ways.
func (b *bench) cutAt(ctx context.Context, r *recorded, recording *powercut.Recording, w Workload, moments []int, cut func()) (all Audit, err error) {
	d, err := powercut.Load(r.before, b.service.Volatile)
	if err != nil {
		return all, err
	}
	d.At(r.data)
	played := 0
	for _, moment := range moments {
		if err := d.Play(recording, played, moment); err != nil {
			return all, err
		}
		played = moment
		for _, survival := range []powercut.Survival{powercut.Lost, powercut.Torn} {
			s := store{data: filepath.Join(r.dir, "left")}
			if err := d.WriteTo(s.data, survival, b.random); err != nil {
				return all, err
			}
			cut()
			all.add(b.reopen(ctx, s, w, recording.Before(moment), fmt.Sprintf("cut after %d of %d events, %s", moment, recording.Events(), survival)))
			if err := errors.Join(os.RemoveAll(s.data), ctx.Err()); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// same checks the harness itself: a disk on which everything survived is what the service left behind, byte for byte.
func (b *bench) same(r *recorded, recording *powercut.Recording) error {
	d, err := powercut.Load(r.before, b.service.Volatile)
	if err != nil {
		return err
	}
	if err := d.At(r.data).Play(recording, 0, recording.Events()); err != nil {
		return err
	}
	kept := filepath.Join(r.dir, "kept")
	if err := d.WriteTo(kept, powercut.Kept, b.random); err != nil {
		return err
	}
	for _, name := range b.service.Files {
		want, werr := os.ReadFile(filepath.Join(r.data, name))
		got, gerr := os.ReadFile(filepath.Join(kept, name))
		if errors.Is(werr, os.ErrNotExist) && errors.Is(gerr, os.ErrNotExist) {
			continue
		}
		if err := errors.Join(werr, gerr); err != nil {
			return fmt.Errorf("the record is not whole: %w", err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the record is not whole: %s is not what the service left behind (%d and %d bytes)", name, len(got), len(want))
		}
	}
	return os.RemoveAll(kept)
}
