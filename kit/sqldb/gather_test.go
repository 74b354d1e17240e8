package sqldb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// desk is what a Gather reads from: each read waits until it is answered.
type desk struct {
	*Gather[string, string]
	reads chan *deskRead
}

type deskRead struct {
	ctx    context.Context
	keys   []string
	answer chan func(found func(string, string)) error
}

func newDesk(t *testing.T, opts GatherOptions[string, string]) *desk {
	t.Helper()
	d := &desk{reads: make(chan *deskRead, 100)}
	opts.Clock = clock.System()
	opts.Read = func(ctx context.Context, keys []string, found func(string, string)) error {
		r := &deskRead{ctx, slices.Clone(keys), make(chan func(func(string, string)) error)}
		d.reads <- r
		select {
		case answer := <-r.answer:
			return answer(found)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var err error
	if d.Gather, err = NewGather(opts); err != nil {
		t.Fatal(err)
	}
	return d
}

// says answers with a value for every key but "nobody".
func (r *deskRead) says(value string) {
	r.answer <- func(found func(string, string)) error {
		for _, k := range r.keys {
			if k != "nobody" {
				found(k, k+" "+value)
			}
		}
		return nil
	}
}

// fails answers with an error.
func (r *deskRead) fails(err error) {
	r.answer <- func(func(string, string)) error { return err }
}

// next returns the read that has begun, and wants no other beside it.
func (d *desk) next(t *testing.T) *deskRead {
	t.Helper()
	synctest.Wait()
	if len(d.reads) != 1 {
		t.Fatalf("%d reads have begun, want 1", len(d.reads))
	}
	return <-d.reads
}

// idle wants no read to have begun, and none to be counted as under way.
func (d *desk) idle(t *testing.T) {
	t.Helper()
	synctest.Wait()
	if len(d.reads) != 0 || d.running != 0 || len(d.waiting) != 0 {
		t.Errorf("%d reads have begun, %d run, %d wait", len(d.reads), d.running, len(d.waiting))
	}
}

// asked is the answer to one caller.
type asked struct {
	value    string
	ok       bool
	err      error
	panicked any
	done     bool
}

// ask calls Get beside the test, once all who have asked before wait.
func (d *desk) ask(ctx context.Context, key string) *asked {
	a := &asked{}
	go func() {
		defer func() { a.done, a.panicked = true, recover() }()
		a.value, a.ok, a.err = d.Get(ctx, key)
	}()
	synctest.Wait()
	return a
}

func (a *asked) want(t *testing.T, value string) {
	t.Helper()
	synctest.Wait()
	if !a.done || a.err != nil || a.panicked != nil || a.value != value || a.ok != (value != "") {
		t.Errorf("got %+v, want %q", a, value)
	}
}

func TestWhoComesAloneIsReadAtOnceAndOnItsOwnAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{})
		began := time.Now()
		for _, key := range []string{"a", "nobody"} {
			answer := d.ask(t.Context(), key)
			r := d.next(t)
			if r.ctx != t.Context() || fmt.Sprint(r.keys) != fmt.Sprintf("[%s]", key) {
				t.Errorf("read %v with another context than that of the call", r.keys)
			}
			r.says("1")
			answer.want(t, map[string]string{"a": "a 1"}[key])
		}
		d.idle(t)
		if !time.Now().Equal(began) {
			t.Error("something was waited for")
		}
	})
}

func TestWhatIsAskedForDuringAReadIsReadTogetherAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{AtOnce: 1, Most: 3})
		first := d.ask(t.Context(), "a")
		early := d.next(t)
		var rest []*asked
		for _, key := range []string{"a", "b", "nobody", "b", "c", "a"} {
			rest = append(rest, d.ask(t.Context(), key))
		}
		synctest.Wait()
		if len(d.reads) != 0 {
			t.Error("a read began beside the first")
		}
		early.says("old")
		first.want(t, "a old")
		// "a" was asked for again after that read had begun: what that saw is not for it.
		full := d.next(t)
		if got := fmt.Sprint(full.keys); got != "[a b nobody]" {
			t.Errorf("read %s, want each key once, three at most", got)
		}
		full.says("new")
		left := d.next(t)
		if got := fmt.Sprint(left.keys); got != "[c a]" {
			t.Errorf("then %s", got)
		}
		left.says("newer")
		for i, want := range []string{"a new", "b new", "", "b new", "c newer", "a newer"} {
			rest[i].want(t, want)
		}
		d.idle(t)
	})
}

func TestWhoLeavesAGatheredReadLeavesItToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{AtOnce: 1})
		first := d.ask(t.Context(), "a")
		early := d.next(t)
		short, end := context.WithTimeout(t.Context(), time.Hour)
		defer end()
		long, endLong := context.WithTimeout(t.Context(), 2*time.Hour)
		leaves, stays := d.ask(short, "b"), d.ask(long, "c")
		early.says("1")
		first.want(t, "a 1")
		r := d.next(t)
		if deadline, ok := r.ctx.Deadline(); !ok || !deadline.Equal(deadlineOf(long)) {
			t.Errorf("the read ends at %v, want the latest of its callers", deadline)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !leaves.done || !errors.Is(leaves.err, context.DeadlineExceeded) || stays.done || r.ctx.Err() != nil {
			t.Errorf("%+v, and the other %+v; the read %v", leaves, stays, r.ctx.Err())
		}
		r.says("2")
		stays.want(t, "c 2")
		endLong()

		// The last one to leave ends the read, or spares it.
		first = d.ask(t.Context(), "a")
		early = d.next(t)
		ctx, cancel := context.WithCancel(t.Context())
		gone := []*asked{d.ask(ctx, "b"), d.ask(ctx, "c")}
		cancel()
		synctest.Wait()
		early.says("3")
		first.want(t, "a 3")
		d.idle(t) // nobody waited: nothing was read

		first = d.ask(t.Context(), "a")
		early = d.next(t)
		ctx, cancel = context.WithCancel(t.Context())
		gone = append(gone, d.ask(ctx, "b"), d.ask(ctx, "c"))
		early.says("4")
		first.want(t, "a 4")
		r = d.next(t)
		if _, ok := r.ctx.Deadline(); ok {
			t.Error("a read without a deadline has one")
		}
		cancel()
		synctest.Wait()
		if r.ctx.Err() == nil {
			t.Error("a read that nobody waits for goes on")
		}
		for _, a := range gone {
			if !a.done || !errors.Is(a.err, context.Canceled) {
				t.Errorf("who has left got %+v", a)
			}
		}
		d.idle(t)
	})
}

// deadlineOf returns the deadline of a context.
func deadlineOf(ctx context.Context) time.Time {
	deadline, _ := ctx.Deadline()
	return deadline
}

func TestAnErrorOfTheStorageIsForAllAndAnyOtherForItsOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{AtOnce: 1})
		first := d.ask(t.Context(), "a")
		early := d.next(t)
		both := []*asked{d.ask(t.Context(), "b"), d.ask(t.Context(), "c")}
		early.fails(ErrUnavailable)
		synctest.Wait()
		if !errors.Is(first.err, ErrUnavailable) {
			t.Errorf("the first got %+v", first)
		}
		d.next(t).fails(ErrStorageFull)
		synctest.Wait()
		for _, a := range both {
			if !a.done || !errors.Is(a.err, ErrStorageFull) {
				t.Errorf("one of both got %+v", a)
			}
		}
		d.idle(t)

		poison := errors.New("cannot be decoded")
		for name, answer := range map[string]func(func(string, string)) error{
			"an error": func(func(string, string)) error { return poison },
			"a panic":  func(func(string, string)) error { panic(poison) },
			"an end":   func(func(string, string)) error { runtime.Goexit(); return nil },
		} {
			first = d.ask(t.Context(), "a")
			early = d.next(t)
			bad, good := d.ask(t.Context(), "bad"), d.ask(t.Context(), "good")
			early.says("1")
			first.want(t, "a 1")
			d.next(t).answer <- answer
			synctest.Wait()
			for range 2 {
				r := <-d.reads
				if r.keys[0] == "bad" {
					r.answer <- answer
				} else {
					r.says("2")
				}
			}
			good.want(t, "good 2")
			if !bad.done || bad.ok || !(errors.Is(bad.err, poison) || bad.panicked == poison || name == "an end") {
				t.Errorf("%s: the bad one got %+v", name, bad)
			}
			d.idle(t)
		}
	})
}

func TestAPanicOfWhoReadsAloneEndsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{AtOnce: 1})
		first := d.ask(t.Context(), "a")
		early := d.next(t)
		other := d.ask(t.Context(), "b")
		early.answer <- func(func(string, string)) error { panic("boom") }
		d.next(t).says("1")
		other.want(t, "b 1")
		if first.panicked != "boom" {
			t.Errorf("the first got %+v", first)
		}
		d.idle(t)
	})
}

func TestWhatHasWaitedForLongIsReadBesideASlowRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, GatherOptions[string, string]{AtOnce: 1})
		stuck := d.ask(t.Context(), "a")
		slow := d.next(t)
		ctx, cancel := context.WithCancel(t.Context())
		leaves, waits := d.ask(ctx, "b"), d.ask(t.Context(), "c")
		time.Sleep(gatherPatience - 1)
		cancel()
		synctest.Wait()
		if len(d.reads) != 0 || !leaves.done {
			t.Fatal("a read began too early, or who left has not")
		}
		time.Sleep(time.Nanosecond)
		beside := d.next(t)
		last := d.ask(t.Context(), "d")
		beside.says("1")
		waits.want(t, "c 1")
		slow.says("2")
		stuck.want(t, "a 2")
		d.next(t).says("3")
		last.want(t, "d 3")
		d.idle(t)
	})
}

func TestAGatherIsGivenWhatItNeeds(t *testing.T) {
	read := func(context.Context, []int, func(int, int)) error { return nil }
	for name, opts := range map[string]GatherOptions[int, int]{
		"no read":        {Clock: clock.System()},
		"no clock":       {Read: read},
		"negative reads": {Read: read, Clock: clock.System(), AtOnce: -1},
		"negative keys":  {Read: read, Clock: clock.System(), Most: -1},
	} {
		if _, err := NewGather(opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Many callers write and read at once, some leave: who has written sees it, or what came later.
func TestGatheredReadsSeeWhatWasWrittenBeforeThem(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(notes(), set("numbers", `CREATE TABLE numbers (id TEXT PRIMARY KEY, value BIGINT NOT NULL);`))
		db := openDB(t, opts)
		ctx := within(t, patience)
		g, err := NewGather(GatherOptions[string, int64]{Clock: clock.System(), Most: 5, Read: func(ctx context.Context, keys []string, found func(string, int64)) error {
			args, marks := make([]any, len(keys)), make([]string, len(keys))
			for i, k := range keys {
				args[i], marks[i] = k, fmt.Sprintf("$%d", i+1)
			}
			return db.ReadRows(ctx, func(row Row) error {
				var id string
				var value int64
				err := row.Scan(&id, &value)
				found(id, value)
				return err
			}, `SELECT id, value FROM numbers WHERE id IN (`+strings.Join(marks, ", ")+`)`, args...)
		}})
		if err != nil {
			t.Fatal(err)
		}
		var counters [4]atomic.Int64
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				for range 40 {
					n := rand.IntN(len(counters))
					id := fmt.Sprint("number ", n)
					if i < 3 {
						err := db.Write(ctx, func(tx *Tx) error {
							return execIn(ctx, tx, `INSERT INTO numbers VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET value = numbers.value + 1`, id)
						})
						if err != nil {
							t.Error(err)
						}
						counters[n].Add(1)
					}
					least := counters[n].Load()
					ctx, cancel := context.WithCancel(ctx)
					if rand.IntN(4) == 0 {
						go cancel()
					}
					got, ok, err := g.Get(ctx, id)
					switch {
					case err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)):
						t.Error(err)
					case err == nil && (got < least || ok != (got > 0)):
						t.Errorf("read %d, %v after %d writes", got, ok, least)
					}
					cancel()
				}
			})
		}
		group.Wait()
		if g.running != 0 || len(g.waiting) != 0 {
			t.Errorf("%d reads run, %d wait", g.running, len(g.waiting))
		}
	})
}
