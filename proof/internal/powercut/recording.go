package powercut

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// calls are what changes files, or makes the change durable. What is not modelled is recorded too, so that it is refused
// instead of overlooked.
const calls = "open,openat,openat2,creat,pwrite64,write,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,fsync,fdatasync,sync_file_range," +
	"rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat"

// longest is the longest write that is recorded whole, in bytes.
const longest = 8 << 20

// Arguments returns the arguments of strace that record, in the file to, what a program does to these paths: absolute names,
// without links, of a directory and of files in it that need not exist yet. The program and its arguments follow after them.
func Arguments(to string, paths ...string) []string {
	args := []string{"-f", "-qq", "-y", "-xx", "-ttt", "-T", "-a", "1", "--seccomp-bpf", "-s", strconv.Itoa(longest), "-e", "signal=none", "-e", "trace=" + calls, "-o", to}
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	return args
}

// kind is what an operation does.
type kind int

const (
	write kind = iota
	resize
	create
	unlink
	rename
	sync
)

// operation is one call.
type operation struct {
	kind   kind
	path   string
	to     string // of rename
	offset int64  // of write; the size of resize
	data   []byte
	// injected says that the call was made to look as if it had been done, failed, of a sync, that it was not.
	injected, failed bool
}

// event is the begin or the end of an operation. Calls other than syncs have an end alone, and none if they failed.
type event struct {
	at    time.Time
	op    *operation
	ended bool
}

// Recording is what a program did to its files, in order.
type Recording struct {
	events []event
	writes int64
	syncs  int
}

// Events returns how many moments there are at which the power can be cut: after each begin or end of a call.
func (r *Recording) Events() int { return len(r.events) }

// Written returns how many bytes were written.
func (r *Recording) Written() int64 { return r.writes }

// Syncs returns how many calls of fsync and fdatasync made something durable.
func (r *Recording) Syncs() int { return r.syncs }

// SyncSpan is a call of fsync or fdatasync that made something durable: the numbers of the events of its begin and its end. What was
// written before it began is what it covers.
type SyncSpan struct{ Begin, End int }

// SyncSpans returns them in the order of their ends.
func (r *Recording) SyncSpans() []SyncSpan {
	var spans []SyncSpan
	began := make(map[*operation]int)
	for n, e := range r.events {
		switch {
		case e.op.kind != sync || e.op.injected || e.op.failed:
		case e.ended:
			spans = append(spans, SyncSpan{began[e.op], n})
		default:
			began[e.op] = n
		}
	}
	return spans
}

// Before returns the time of the moment after n events: right before the next one. Whatever the program told others by then, it
// told after the n events.
func (r *Recording) Before(n int) time.Time {
	if n < len(r.events) {
		return r.events[n].at
	}
	return time.Unix(1<<40, 0)
}

// Read reads what strace recorded with the arguments of Arguments. It refuses a call that it does not know how to model.
func Read(from io.Reader) (*Recording, error) {
	r := &Recording{}
	pending := make(map[string]*begun) // by thread
	in := bufio.NewReaderSize(from, 1<<20)
	for number := 1; ; number++ {
		line, err := in.ReadString('\n')
		if line != "" && strings.HasSuffix(line, "\n") { // the last line of a program that was killed may be half
			if err := r.line(strings.TrimSuffix(line, "\n"), pending); err != nil {
				return nil, fmt.Errorf("line %d: %w: %.120s", number, err, line)
			}
		}
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// begun is a call that has not ended yet.
type begun struct {
	name, args string
	op         *operation
}

func (r *Recording) line(line string, pending map[string]*begun) error {
	thread, rest, _ := strings.Cut(line, " ")
	stamp, rest, ok := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !ok {
		return errors.New("no time")
	}
	at, err := parseTime(stamp)
	if err != nil {
		return err
	}
	if strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---") {
		return nil
	}
	if resumed, ok := strings.CutPrefix(rest, "<... "); ok {
		_, tail, ok := strings.Cut(resumed, " resumed>")
		b := pending[thread]
		if !ok || b == nil {
			return errors.New("the end of a call that did not begin")
		}
		delete(pending, thread)
		return r.end(b, at, tail)
	}
	name, rest, ok := strings.Cut(rest, "(")
	if !ok {
		return errors.New("no call")
	}
	if name == "???" && strings.HasSuffix(rest, "<detached ...>") {
		return nil // a thread that ended between two calls, with its process
	}
	b := &begun{name: name}
	args, unfinished := strings.CutSuffix(rest, " <unfinished ...>")
	if unfinished {
		b.args = args
		pending[thread] = b
		return r.begin(b, at)
	}
	// The time of a whole line is that of its begin; it says itself how long the call took.
	if err := r.begin(b, at); err != nil {
		return err
	}
	took := time.Duration(0)
	if i := strings.LastIndexByte(rest, '<'); i >= 0 {
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(rest[i+1:], ">"), 64); err == nil {
			took = time.Duration(seconds * float64(time.Second))
		}
	}
	return r.end(b, at.Add(took), rest)
}

// begin notes that a call begins, where that matters: what a sync covers is what was written before.
func (r *Recording) begin(b *begun, at time.Time) error {
	if b.name != "fsync" && b.name != "fdatasync" {
		return nil
	}
	b.op = &operation{kind: sync}
	r.events = append(r.events, event{at: at, op: b.op})
	return nil
}

// end notes how a call ended.
func (r *Recording) end(b *begun, at time.Time, tail string) error {
	i := strings.LastIndex(tail, ") = ")
	if i < 0 {
		return errors.New("no answer")
	}
	_, answer, _ := strings.Cut(tail[i:], "= ")
	failed := strings.HasPrefix(answer, "-1")
	if failed && b.op == nil || strings.HasPrefix(answer, "?") {
		return nil // it failed, or the program was killed
	}
	op, err := parse(b.name, b.args+tail[:i], answer)
	if err != nil || op == nil {
		return err
	}
	op.failed, op.injected = failed, strings.Contains(answer, "(INJECTED)")
	if b.op != nil {
		*b.op = *op
		op = b.op
	}
	switch {
	case op.kind == write:
		r.writes += int64(len(op.data))
	case op.kind == sync && !op.injected && !op.failed:
		r.syncs++
	}
	r.events = append(r.events, event{at: at, op: op, ended: true})
	return nil
}

// parse returns what a call did that succeeded, or nil if it did nothing to the files.
func parse(name, text, answer string) (*operation, error) {
	args, err := split(text)
	if err != nil {
		return nil, err
	}
	need := func(n int) error {
		if len(args) < n {
			return fmt.Errorf("%s has %d arguments", name, len(args))
		}
		return nil
	}
	switch name {
	case "fsync", "fdatasync":
		return &operation{kind: sync, path: args[0].path}, need(1)
	case "pwrite64":
		if err := need(4); err != nil {
			return nil, err
		}
		n, nerr := leading(answer)
		offset, oerr := strconv.ParseInt(args[3].text, 10, 64)
		if err := errors.Join(nerr, oerr); err != nil {
			return nil, err
		}
		if args[1].cut || n > int64(len(args[1].data)) {
			return nil, errors.New("the write is not recorded whole")
		}
		return &operation{kind: write, path: args[0].path, offset: offset, data: args[1].data[:n]}, nil
	case "ftruncate":
		if err := need(2); err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(args[1].text, 10, 64)
		return &operation{kind: resize, path: args[0].path, offset: size}, err
	case "open", "openat":
		at := 0
		if name == "openat" { // the directory comes first
			at = 1
		}
		if err := need(at + 2); err != nil {
			return nil, err
		}
		flags := strings.Split(args[at+1].text, "|")
		switch {
		case slices.Contains(flags, "O_TRUNC"):
			return nil, errors.New("O_TRUNC is not modelled")
		case !slices.Contains(flags, "O_CREAT"):
			return nil, nil
		}
		return named(&operation{kind: create}, args[at])
	case "unlink":
		return named(&operation{kind: unlink}, args[0])
	case "unlinkat":
		if err := need(2); err != nil {
			return nil, err
		}
		return named(&operation{kind: unlink}, args[1])
	case "rename":
		if err := need(2); err != nil {
			return nil, err
		}
		return named(&operation{kind: rename}, args[0], args[1])
	case "renameat", "renameat2":
		if err := need(4); err != nil {
			return nil, err
		}
		return named(&operation{kind: rename}, args[1], args[3])
	default:
		return nil, errors.New("the call is not modelled")
	}
}

// named gives an operation the names that it is about.
func named(op *operation, names ...argument) (*operation, error) {
	for _, n := range names {
		if !filepath.IsAbs(string(n.data)) {
			return nil, errors.New("the name is relative")
		}
	}
	op.path = string(names[0].data)
	if len(names) > 1 {
		op.to = string(names[1].data)
	}
	return op, nil
}

// argument is one argument of a call: a file with its path, a string, or something else as it stands.
type argument struct {
	path string
	data []byte
	cut  bool // whether data is not all
	text string
}

// split splits arguments. All strings and paths are of hexadecimal escapes, so that no sign in them has a meaning.
func split(text string) ([]argument, error) {
	var args []argument
	for _, part := range strings.Split(text, ", ") {
		a := argument{text: part}
		var err error
		switch {
		case strings.HasPrefix(part, `"`):
			body, cut := strings.CutSuffix(part, "...")
			a.cut = cut
			a.data, err = unescape(strings.Trim(body, `"`))
		case strings.HasSuffix(part, ">") && strings.Contains(part, "<"):
			_, inside, _ := strings.Cut(strings.TrimSuffix(part, ">"), "<")
			var path []byte
			path, err = unescape(inside)
			a.path = string(path)
		}
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	return args, nil
}

// unescape decodes \x41\x42….
func unescape(s string) ([]byte, error) {
	if len(s)%4 != 0 {
		return nil, errors.New("a string is not in hexadecimal escapes")
	}
	out := make([]byte, len(s)/4)
	for i := range out {
		e := s[4*i : 4*i+4]
		high, low := digit(e[2]), digit(e[3])
		if e[0] != '\\' || e[1] != 'x' || high < 0 || low < 0 {
			return nil, errors.New("a string is not in hexadecimal escapes")
		}
		out[i] = byte(high<<4 | low)
	}
	return out, nil
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// leading returns the number at the begin of an answer.
func leading(answer string) (int64, error) {
	number, _, _ := strings.Cut(answer, " ")
	return strconv.ParseInt(number, 10, 64)
}

// parseTime reads seconds since 1970 with six digits of microseconds.
func parseTime(s string) (time.Time, error) {
	whole, fraction, ok := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	micros, merr := strconv.ParseInt(fraction, 10, 64)
	if !ok || len(fraction) != 6 || err != nil || merr != nil {
		return time.Time{}, fmt.Errorf("no time: %.20q", s)
	}
	return time.Unix(seconds, micros*1000), nil
}
