package sqldb

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
)

const (
	defaultGatherAtOnce = 2
	defaultGatherMost   = 128
	// gatherPatience is how long keys wait for reads before them, which are usually done in a millisecond. What takes longer may be a
	// connection whose other end is gone, and says nothing about the others.
	gatherPatience = 50 * time.Millisecond
)

// GatherOptions say what is read, and how.
type GatherOptions[K comparable, V any] struct {
	// Read reads the keys, each of which comes once, by one statement such as `… WHERE id = ANY($1)`, and tells found the value of
	// each that has one. It may be called at any time until the last Get has returned, several times at once. Required.
	//
	// Its context ends when the last caller's does, and has no values of theirs. It keeps no keys after it has returned.
	Read func(ctx context.Context, keys []K, found func(K, V)) error
	// AtOnce is how many reads run at once as long as none takes long. Zero means 2.
	AtOnce int
	// Most is how many keys one read has at most. Zero means 128.
	Most int
	// Clock tells how long a read takes. Required.
	Clock clock.Clock
}

// Gather reads single values for many callers, as a group commit writes for many: while some reads are under way, the keys that
// are asked for wait, and are then read together by one statement. Where nothing is under way a caller reads at once and by
// itself, so an idle database answers as fast as without.
//
// Each caller sees the database as it was at some moment after its Get began, so it reads what it has written: a read that has
// been sent takes no more keys. It is safe for concurrent use.
type Gather[K comparable, V any] struct {
	opts GatherOptions[K, V]

	mu      sync.Mutex
	running int               // reads under way
	waiting []*gathered[K, V] // the keys that come next are in front; all but the last are full
}

// gathered are keys that are read together.
type gathered[K comparable, V any] struct {
	keys   []K
	places map[K]int // in keys
	slow   <-chan time.Time
	done   chan struct{} // closed when values and err are there

	// Until it is sent, under the lock of Gather:
	sent     bool
	deadline time.Time // the latest of the callers'
	endless  bool      // one has none

	// Under that lock at all times:
	callers int // who wait
	cancel  context.CancelFunc

	values []V
	found  []bool
	err    error
}

// errSpoiled: a read panicked.
var errSpoiled = errors.New("the read did not return")

// NewGather returns a Gather that reads with opts.Read. It needs no closing.
func NewGather[K comparable, V any](opts GatherOptions[K, V]) (*Gather[K, V], error) {
	switch {
	case opts.Read == nil:
		return nil, errors.New("nothing to read with is given")
	case opts.Clock == nil:
		return nil, errors.New("no clock given")
	case opts.AtOnce < 0 || opts.Most < 0:
		return nil, fmt.Errorf("%d reads at once of %d keys at most", opts.AtOnce, opts.Most)
	}
	if opts.AtOnce == 0 {
		opts.AtOnce = defaultGatherAtOnce
	}
	if opts.Most == 0 {
		opts.Most = defaultGatherMost
	}
	return &Gather[K, V]{opts: opts}, nil
}

// Get returns the value of a key, and whether it has one. Callers of the same key may be given the same value: they do not
// change what it refers to.
//
// It returns the error of Read, or that of ctx as soon as ctx ends; the read goes on for others who wait for it. When several keys
// were read together and Read returned an error that is not about the storage (of the kind fault.Internal), or panicked, each
// of their callers reads its own key again alone, so that a key that cannot be read spoils its own call only.
func (g *Gather[K, V]) Get(ctx context.Context, key K) (V, bool, error) {
	b, place := g.join(ctx, key, false)
	if b == nil {
		// Callers that are about to ask come first, if there are any.
		runtime.Gosched()
		b, place = g.join(ctx, key, true)
	}
	if b == nil {
		defer g.leaveTurn() // also when Read panics
		return g.alone(ctx, key)
	}
	if err := g.wait(ctx, b); err != nil {
		var none V
		return none, false, fmt.Errorf("wait for the read: %w", err)
	}
	if b.err == nil {
		return b.values[place], b.found[place], nil
	}
	if again := errors.Is(b.err, errSpoiled) || len(b.keys) > 1 && fault.KindOf(b.err) == fault.Internal; again {
		return g.alone(ctx, key)
	}
	var none V
	return none, false, b.err
}

// alone reads one key on the caller's own account.
func (g *Gather[K, V]) alone(ctx context.Context, key K) (value V, ok bool, err error) {
	err = g.opts.Read(ctx, []K{key}, func(_ K, v V) { value, ok = v, true })
	return value, ok, err
}

// join returns what the caller waits for and the place of its key there, or nil if it has a turn. Who has one joins once more: then
// nil means that nobody else has come, and the caller reads by itself.
func (g *Gather[K, V]) join(ctx context.Context, key K, turn bool) (b *gathered[K, V], place int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case turn && len(g.waiting) == 0:
		return nil, 0
	case turn:
		b, place = g.add(ctx, key)
		first := g.waiting[0]
		go g.run(g.take(0), first)
		return b, place
	case g.running < g.opts.AtOnce && len(g.waiting) == 0:
		g.running++
		return nil, 0
	}
	return g.add(ctx, key)
}

// add puts a key to those that wait.
func (g *Gather[K, V]) add(ctx context.Context, key K) (b *gathered[K, V], place int) {
	if n := len(g.waiting); n > 0 {
		b = g.waiting[n-1]
		place, there := b.places[key]
		if there || len(b.keys) < g.opts.Most {
			if !there {
				place = b.add(key)
			}
			b.expect(ctx)
			return b, place
		}
	}
	b = &gathered[K, V]{
		places: make(map[K]int),
		slow:   g.opts.Clock.After(gatherPatience),
		done:   make(chan struct{}),
	}
	g.waiting = append(g.waiting, b)
	place = b.add(key)
	b.expect(ctx)
	return b, place
}

func (b *gathered[K, V]) add(key K) (place int) {
	place = len(b.keys)
	b.keys = append(b.keys, key)
	b.places[key] = place
	return place
}

// expect counts a caller in.
func (b *gathered[K, V]) expect(ctx context.Context) {
	b.callers++
	if deadline, ok := ctx.Deadline(); !ok {
		b.endless = true
	} else if deadline.After(b.deadline) {
		b.deadline = deadline
	}
}

// wait waits until the keys are read. It returns the error of ctx if that ends first.
func (g *Gather[K, V]) wait(ctx context.Context, b *gathered[K, V]) error {
	slow := b.slow
	for {
		select {
		case <-b.done:
			return nil
		case <-slow: // one of the callers is told
			slow = nil
			g.hurry(b)
		case <-ctx.Done():
			g.abandon(b)
			return ctx.Err()
		}
	}
}

// abandon counts a caller out. What nobody waits for is not read.
func (g *Gather[K, V]) abandon(b *gathered[K, V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b.callers--
	switch {
	case b.callers > 0:
	case b.sent:
		b.cancel()
	default:
		if i := slices.Index(g.waiting, b); i >= 0 {
			g.waiting = slices.Delete(g.waiting, i, i+1)
		}
	}
}

// hurry sends keys that have waited for long, beside the reads that they waited for.
func (g *Gather[K, V]) hurry(b *gathered[K, V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, b)
	if i < 0 {
		return
	}
	g.running++
	ctx := g.take(i)
	go g.run(ctx, b)
}

// take marks waiting keys as sent, so that nobody joins them any more, and returns the context of their read.
func (g *Gather[K, V]) take(i int) context.Context {
	b := g.waiting[i]
	g.waiting = slices.Delete(g.waiting, i, i+1)
	b.sent = true
	var ctx context.Context
	if b.endless {
		ctx, b.cancel = context.WithCancel(context.Background())
	} else {
		ctx, b.cancel = context.WithDeadline(context.Background(), b.deadline)
	}
	return ctx
}

// leaveTurn ends the turn of a caller that read by itself; who has waited takes it over.
func (g *Gather[K, V]) leaveTurn() {
	if ctx, b := g.next(); b != nil {
		go g.run(ctx, b)
	}
}

// next returns what is to be read in a turn that is over, or nothing.
func (g *Gather[K, V]) next() (context.Context, *gathered[K, V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 || g.running > g.opts.AtOnce {
		g.running--
		return nil, nil
	}
	b := g.waiting[0]
	return g.take(0), b
}

// run reads for those who wait until nobody does.
func (g *Gather[K, V]) run(ctx context.Context, b *gathered[K, V]) {
	defer func() {
		if b != nil { // Read has ended its goroutine, as a test does that fails
			g.leaveTurn()
		}
	}()
	for b != nil {
		g.send(ctx, b)
		runtime.Gosched() // who was woken, or is about to ask, comes first
		ctx, b = g.next()
	}
}

// send reads the keys and wakes their callers. A panic of Read ends here: the callers meet it when they read alone.
func (g *Gather[K, V]) send(ctx context.Context, b *gathered[K, V]) {
	defer close(b.done)
	defer b.cancel()
	defer func() { _ = recover() }()
	b.values, b.found = make([]V, len(b.keys)), make([]bool, len(b.keys))
	b.err = errSpoiled
	b.err = g.opts.Read(ctx, b.keys, func(k K, v V) {
		if i, ok := b.places[k]; ok {
			b.values[i], b.found[i] = v, true
		}
	})
}
