// Package powercut says what a disk has after the power was cut: strace records what a program does to its files, and Disk
// plays that up to a moment and writes what would be left.
//
// What survives is what fsync or fdatasync had answered for, of that file. A name is durable with its directory's fsync or, as on
// ext4, with that of the new file itself. Everything else is at the mercy of the cut: all of it may be lost, or any part of it
// may have reached the disk, in any order and torn at the sectors (see Survival).
//
// What is not modelled: a disk that lies about its cache, a sector that is half old and half new, memory-mapped writes (name
// such files to Load as volatile; they are not there after the cut).
package powercut

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Survival says what becomes of data that no sync had answered for.
type Survival int

const (
	// Lost: nothing of it is there.
	Lost Survival = iota
	// Torn: of each sector of 512 bytes one of the versions since the last sync is there, whichever; of changes of names, the first
	// so many.
	Torn
	// Kept: all of it is there, as after a kill.
	Kept
)

// String implements fmt.Stringer.
func (s Survival) String() string {
	switch s {
	case Lost:
		return "unsynced data lost"
	case Torn:
		return "unsynced data torn"
	case Kept:
		return "all data kept"
	default:
		return fmt.Sprintf("Survival(%d)", int(s))
	}
}

// sector is what a disk writes at once.
const sector = 512

// file is a file and what of it is on the disk.
type file struct {
	durable []byte
	pending []*operation // writes and resizes that are not durable
}

// Disk is a directory with its files, as the program sees them and as they are on the disk.
type Disk struct {
	dir      string
	volatile func(path string) bool
	names    map[string]*file // as the program sees them
	durable  map[string]*file // as the directory has them on the disk
	pending  []*operation     // changes of names that are not durable
	covered  map[*operation]covers
}

// covers is what a sync that has begun will make durable.
type covers struct {
	file  *file
	count int
	names int // of a directory
}

// Load returns a disk that has the directory, with all that is in it durable: the state at the begin of a recording. Files that
// volatile names do not survive a cut.
func Load(dir string, volatile func(path string) bool) (*Disk, error) {
	d := &Disk{dir: filepath.Clean(dir), volatile: volatile, names: map[string]*file{}, durable: map[string]*file{}, covered: map[*operation]covers{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(d.dir, e.Name())
		if volatile(path) {
			continue
		}
		if !e.Type().IsRegular() {
			return nil, fmt.Errorf("%s is no regular file", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f := &file{durable: data}
		d.names[path], d.durable[path] = f, f
	}
	return d, nil
}

// At says that the files of the directory are recorded under another name of it: that at which the program had it.
func (d *Disk) At(dir string) *Disk {
	moved := func(names map[string]*file) map[string]*file {
		out := make(map[string]*file, len(names))
		for path, f := range names {
			out[filepath.Join(dir, filepath.Base(path))] = f
		}
		return out
	}
	d.names, d.durable, d.dir = moved(d.names), moved(d.durable), filepath.Clean(dir)
	return d
}

// Play plays the events from the first up to, not including, the last.
func (d *Disk) Play(r *Recording, first, last int) error {
	for _, e := range r.events[first:last] {
		if err := d.play(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) play(e event) error {
	op := e.op
	if op.path == "" || d.volatile(op.path) { // no path: a sync that never ended
		return nil
	}
	if op.kind == sync {
		switch {
		case !e.ended:
			d.begin(op)
		case op.failed:
			d.forget(op)
		case !op.injected:
			d.settle(op)
		}
		return nil
	}
	f := d.names[op.path]
	switch op.kind {
	case create:
		if f == nil {
			d.names[op.path] = &file{}
			d.pending = append(d.pending, op)
		}
		return nil
	case unlink:
		delete(d.names, op.path)
		d.pending = append(d.pending, op)
		return nil
	case rename:
		delete(d.names, op.path)
		d.names[op.to] = f
		d.pending = append(d.pending, op)
		return nil
	}
	if f == nil {
		return fmt.Errorf("a write to %s, which does not exist", filepath.Base(op.path))
	}
	f.pending = append(f.pending, op)
	return nil
}

// begin notes what a sync will cover.
func (d *Disk) begin(op *operation) {
	c := covers{file: d.names[op.path]}
	if c.file != nil {
		c.count = len(c.file.pending)
	}
	if op.path == d.dir {
		c.names = len(d.pending)
	}
	d.covered[op] = c
}

// settle makes durable what a sync covered.
func (d *Disk) settle(op *operation) {
	c := d.covered[op]
	delete(d.covered, op)
	if c.names > 0 {
		c.names = min(c.names, len(d.pending)) // two syncs of the directory at once
		for _, p := range d.pending[:c.names] {
			d.apply(d.durable, p)
		}
		d.pending = d.pending[c.names:]
	}
	if c.file == nil {
		return
	}
	c.count = min(c.count, len(c.file.pending))
	for _, p := range c.file.pending[:c.count] {
		c.file.durable = change(c.file.durable, p, p.offset, p.data)
	}
	c.file.pending = c.file.pending[c.count:]
	if d.names[op.path] == c.file && d.durable[op.path] == nil {
		d.durable[op.path] = c.file // the entry of a new file goes with it
	}
}

// forget makes what a sync covered that failed unable to survive, as Linux does: the pages count as written, and a later sync does
// not write them again.
func (d *Disk) forget(op *operation) {
	c := d.covered[op]
	delete(d.covered, op)
	if c.file != nil {
		c.file.pending = c.file.pending[min(c.count, len(c.file.pending)):]
	}
}

// apply changes names.
func (d *Disk) apply(names map[string]*file, op *operation) {
	switch op.kind {
	case create:
		if f := d.names[op.path]; f != nil && names[op.path] == nil {
			names[op.path] = f
		}
	case unlink:
		delete(names, op.path)
	case rename:
		if f := names[op.path]; f != nil {
			names[op.to] = f
		} else if f := d.names[op.to]; f != nil {
			names[op.to] = f
		}
		delete(names, op.path)
	}
}

// change returns data after a write or a resize.
func change(data []byte, op *operation, offset int64, part []byte) []byte {
	if op.kind == resize {
		if op.offset <= int64(len(data)) {
			return data[:op.offset]
		}
		return append(data, make([]byte, op.offset-int64(len(data)))...)
	}
	if end := offset + int64(len(part)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[offset:], part)
	return data
}

// WriteTo writes what is on the disk after a cut at this moment into a directory, which is made. The disk stays as it is.
func (d *Disk) WriteTo(dir string, survival Survival, random *rand.Rand) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names := maps.Clone(d.durable)
	reached := 0
	switch survival {
	case Kept:
		reached = len(d.pending)
	case Torn:
		reached = random.IntN(len(d.pending) + 1)
	}
	for _, p := range d.pending[:reached] {
		d.apply(names, p)
	}
	for path, f := range names {
		if strings.Contains(filepath.Base(path), string(filepath.Separator)) || filepath.Dir(path) != d.dir {
			return fmt.Errorf("%s is not in the directory", path)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), f.after(survival, random), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// after returns what is left of a file.
func (f *file) after(survival Survival, random *rand.Rand) []byte {
	if survival == Lost || len(f.pending) == 0 {
		return f.durable
	}
	data := append([]byte(nil), f.durable...)
	if survival == Kept {
		for _, op := range f.pending {
			data = change(data, op, op.offset, op.data)
		}
		return data
	}
	versions := make(map[int64]int) // of each sector
	for _, op := range f.pending {
		for n := range op.sectors() {
			versions[n]++
		}
	}
	left := make(map[int64]int, len(versions)) // how many of them reached the disk
	for _, op := range f.pending {
		for n := range op.sectors() {
			if _, ok := left[n]; !ok {
				left[n] = random.IntN(versions[n] + 1)
			}
		}
	}
	for _, op := range f.pending {
		if op.kind == resize && random.IntN(2) == 0 {
			data = change(data, op, 0, nil)
		}
		for n, part := range op.sectors() {
			if left[n]--; left[n] >= 0 {
				data = change(data, op, max(op.offset, n*sector), part)
			}
		}
	}
	return data
}

// sectors yields the sectors that a write touches, in order, with what it writes there.
func (op *operation) sectors() func(yield func(int64, []byte) bool) {
	return func(yield func(int64, []byte) bool) {
		if op.kind != write {
			return
		}
		for at, rest := op.offset, op.data; len(rest) > 0; {
			n := at / sector
			size := min(int64(len(rest)), (n+1)*sector-at)
			if !yield(n, rest[:size]) {
				return
			}
			at, rest = at+size, rest[size:]
		}
	}
}
