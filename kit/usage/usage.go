// Package usage counts which fields of the contract are filled in, by whom and when last, so that a review can tell a
// field that nobody uses from one that payments sent an hour ago. kit/server fills a Recorder, kit/admin shows its
// Snapshot.
//
// It promises that no value ever gets in: of a message only the names of its fields and the numbers of those that
// nobody knows are kept. It promises a bound to its memory and to the work for one message, and that what a bound has
// cost is counted and shown. It keeps nothing across a restart: a Snapshot tells of the time since the process
// started, and of a sample of it. That a field is not in it is evidence, and no proof.
package usage

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/clock"
)

const (
	// DefaultMaxEntries bounds a Recorder's memory, at about 200 bytes an entry.
	DefaultMaxEntries = 20_000
	// unknownShare is the part of all entries that fields of unknown numbers may take, as 1 in so many: callers
	// choose the numbers, and must not crowd out what has a name.
	unknownShare = 4
	// lookEvery is how long no message of a caller, method and direction goes without being looked at, while there are
	// any: who calls seldom is seen whatever the sample.
	lookEvery = time.Minute
)

// Config is what a Recorder needs. Every field but MaxEntries is required.
type Config struct {
	// Service is the name of the service, or of the program that holds several.
	Service string
	// OneIn is how many messages one is looked at of: 1 looks at all of them, 0 at none, and nothing is counted.
	OneIn uint32
	// MaxEntries bounds how many things are counted: fields by caller, method and direction, and the pairs of caller
	// and method themselves. What comes beyond is dropped, and counted as that. Zero means DefaultMaxEntries.
	MaxEntries int
	// Clock is the time.
	Clock clock.Clock
	// Random draws the sample. It is called by many goroutines at once; it need not be cryptographic.
	Random func() uint64
}

// Recorder counts for one process. It is safe for concurrent use.
type Recorder struct {
	cfg        Config
	since      time.Time
	maxEntries int64

	entries, unknown   atomic.Int64 // what is kept; unknown is the part of it that has a number alone
	dropped, truncated atomic.Uint64

	mu      sync.Mutex
	methods map[string]*Method // by full name
}

// New returns a Recorder that has counted nothing yet.
func New(cfg Config) *Recorder {
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultMaxEntries
	}
	return &Recorder{cfg: cfg, since: cfg.Clock.Now(), maxEntries: int64(cfg.MaxEntries), methods: make(map[string]*Method)}
}

// Method returns what counts for the method of that full name, such as "/users.v1.UserService/GetUser"; nil where
// nothing is counted, which is also what a nil Recorder returns.
func (r *Recorder) Method(name string) *Method {
	if r == nil || r.cfg.OneIn == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.methods[name]
	if m == nil {
		m = &Method{recorder: r}
		m.callers.Store(new(map[string]*Tally))
		r.methods[name] = m
	}
	return m
}

// room takes room for one more entry. Where there is none it counts one that was dropped.
func (r *Recorder) room(unknown bool) bool {
	if unknown && r.unknown.Add(1) > r.maxEntries/unknownShare {
		r.unknown.Add(-1)
		r.dropped.Add(1)
		return false
	}
	if r.entries.Add(1) > r.maxEntries {
		r.entries.Add(-1)
		if unknown {
			r.unknown.Add(-1)
		}
		r.dropped.Add(1)
		return false
	}
	return true
}

// Method counts for one method of the contract.
type Method struct {
	recorder *Recorder
	mu       sync.Mutex                        // held to add a caller
	callers  atomic.Pointer[map[string]*Tally] // never changed, only replaced: there are few callers, and many calls
}

// From returns what counts the messages that caller exchanges with the method. It must name a program and not a
// person, and come from a set that callers cannot add to as they like: the name in a certificate. It is nil, and
// counts nothing, where there is no room for one more.
func (m *Method) From(caller string) *Tally {
	if t := (*m.callers.Load())[caller]; t != nil {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.callers.Load()
	if t := known[caller]; t != nil {
		return t
	}
	if !m.recorder.room(false) {
		return nil
	}
	t := &Tally{recorder: m.recorder}
	more := maps.Clone(known)
	if more == nil {
		more = make(map[string]*Tally, 1)
	}
	more[caller] = t
	m.callers.Store(&more)
	return t
}

// Tally counts the messages between one caller and one method. A nil Tally counts nothing.
type Tally struct {
	recorder *Recorder
	sides    [len(directions)]side
}

// Request counts a message that came. It reads m, and keeps nothing of it.
func (t *Tally) Request(m proto.Message) {
	if t != nil {
		t.count(&t.sides[Request], m)
	}
}

// Response counts a message that was sent. It reads m, and keeps nothing of it.
func (t *Tally) Response(m proto.Message) {
	if t != nil {
		t.count(&t.sides[Response], m)
	}
}

// Opaque counts a message that was sent and that nobody can look into, because it was encoded before.
func (t *Tally) Opaque() {
	if t != nil {
		t.sides[Response].messages.Add(1)
	}
}

func (t *Tally) count(s *side, m proto.Message) {
	now := t.recorder.cfg.Clock.Now().UnixNano()
	if s.due(t.recorder, now) {
		s.look(t.recorder, m.ProtoReflect(), now)
	}
}

// side is one direction of a Tally.
type side struct {
	messages atomic.Uint64
	next     atomic.Int64 // when a message is looked at whatever the sample says, in ns since 1970

	mu      sync.Mutex
	sampled uint64 // messages that were looked at
	last    int64  // when the last of them was, in ns since 1970
	root    node
}

// due counts a message and decides whether it is looked at.
func (s *side) due(r *Recorder, now int64) bool {
	s.messages.Add(1)
	if next := s.next.Load(); now >= next && s.next.CompareAndSwap(next, now+int64(lookEvery)) {
		return true
	}
	return r.cfg.OneIn == 1 || r.cfg.Random()%uint64(r.cfg.OneIn) == 0
}
