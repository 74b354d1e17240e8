package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Subscription is one reader of the log. First it reads the table at its own pace; once it has caught up it is live,
// which means that Run puts events into its buffer. Next is for one goroutine; the other methods are safe beside it.
type Subscription struct {
	log   *Log
	scope string
	match func(Event) bool

	wake chan struct{} // holds a value when Next should look again
	memo *fanout.Memo  // of the event that Next returned last; its goroutine alone looks

	mu     sync.Mutex
	queue  queue
	seen   int64 // all events up to here that match are in the queue or were returned
	atHead bool  // nothing more was there when seen was read
	live   bool
	closed bool
	end    *fault.Fault // why no more comes after the queue
	onCut  func(error)
}

// Subscribe begins a watch. It returns ErrBadToken, ErrTooOld or ErrStopped. The subscription must be closed; ctx is
// only for the call. Run may be started later, but events come only while it runs, beside those that were there
// before.
func (l *Log) Subscribe(ctx context.Context, w Watch) (*Subscription, error) {
	after, foreign := int64(-1), false
	if w.Token != "" {
		var err error
		if after, foreign, err = l.tokens.parse(w.Scope, w.Token); err != nil {
			return nil, err
		}
	}
	if w.Token == "" && l.inbox != nil {
		// What is committed by now comes before the watch, also if it has no number yet.
		if err := l.inbox.order(ctx); err != nil {
			return nil, err
		}
	}
	var trimmed, head int64
	err := l.db.Read(ctx, func(q sqldb.Querier) (err error) {
		if trimmed, head, err = l.bounds(ctx, q); err != nil || w.Token != "" {
			return err
		}
		after, err = since(ctx, q, w.Since, trimmed, head)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A position that the log has not reached yet is of a history that was lost, such as by a restored backup.
	if foreign || after < trimmed || after > head {
		return nil, l.tooOld(w.Scope, trimmed)
	}
	s := &Subscription{
		log:    l,
		scope:  w.Scope,
		match:  w.Match,
		wake:   make(chan struct{}, 1),
		seen:   after,
		atHead: after == head,
	}
	s.log.join(s)
	if err := s.ended(); err != nil {
		return nil, err
	}
	l.count(1)
	return s, nil
}

// since returns the position right after the last event that happened before t, for a zero t the head of the log.
func since(ctx context.Context, q sqldb.Querier, t time.Time, trimmed, head int64) (after int64, err error) {
	if t.IsZero() {
		return head, nil
	}
	err = q.QueryRowContext(ctx, `SELECT seq FROM event_log WHERE at < $1 ORDER BY seq DESC LIMIT 1`, t.UnixMicro()).Scan(&after)
	if errors.Is(err, sql.ErrNoRows) {
		return trimmed, nil
	}
	return after, err
}

// Next returns the next event that matches, and the token to resume right after it. It waits until there is one or
// ctx ends; then it returns the error of ctx, and may be called again without losing anything.
//
// When no more comes it returns, after what was buffered, one of ErrSlowConsumer and ErrStopped with the metadata
// resume_token, ErrTooOld or ErrSubscriptionClosed; and errors of the database as they are.
func (s *Subscription) Next(ctx context.Context) (Event, string, error) {
	for {
		e, ok, live, err := s.take()
		if err != nil {
			return Event{}, "", err
		}
		if ok {
			s.memo = e.memo
			return e, s.log.tokens.token(s.scope, e.Seq), nil
		}
		if !live {
			if err := s.catchUp(ctx); err != nil {
				return Event{}, "", endOr(ctx, err)
			}
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, "", ctx.Err()
		}
	}
}

// Memo returns what is kept of the event that Next returned last while it goes to all who are live: nil where it was read for
// this subscription alone. It is for the goroutine of Next. What is read later, perhaps because it was redacted meanwhile, has
// nothing in common with it.
func (s *Subscription) Memo() *fanout.Memo { return s.memo }

// endOr returns the error of a context that has ended, whatever that broke, and otherwise err.
func endOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A connection can notice the deadline before the context does.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return err
}

// Position returns the token of the newest point up to which Next has returned all that matches. It moves on past
// events that do not match, so that a quiet watch does not become too old.
func (s *Subscription) Position() string {
	s.mu.Lock()
	seq := s.position()
	s.mu.Unlock()
	return s.log.tokens.token(s.scope, seq)
}

// OnCut has fn called with ErrSlowConsumer, on a goroutine of its own and at most once, when the subscription is cut, also if that
// was before. It is for a subscriber that hands on what Next returns and may be held up by that, so that it never comes to
// Next again: what is buffered is kept until Close. The last fn counts.
func (s *Subscription) OnCut(fn func(why error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onCut = fn
	if s.end == ErrSlowConsumer {
		s.cut()
	}
}

// cut tells who asked that the subscription was cut; the caller has mu.
func (s *Subscription) cut() {
	if s.onCut != nil {
		go s.onCut(ErrSlowConsumer)
		s.onCut = nil
	}
}

// Close ends the subscription; a Next that waits returns. Closing twice is allowed.
func (s *Subscription) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.seen = s.position() // what is still in the queue was not told
	s.queue = queue{}
	s.mu.Unlock()
	s.log.leave(s)
	s.notify()
}

// position is the newest point up to which everything has been told; the caller has mu.
func (s *Subscription) position() int64 {
	if next, ok := s.queue.first(); ok {
		return next.Seq - 1
	}
	return s.seen
}

// take returns the first event of the queue, or why there will be none, or whether the next one comes by itself.
func (s *Subscription) take() (e Event, ok, live bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.queue.pop(); ok {
		return e, true, s.live, nil
	}
	return Event{}, false, s.live, s.endError()
}

// ended returns why no more comes, or nil.
func (s *Subscription) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endError()
}

// endError returns why no more comes, with where to go on; the caller has mu and the queue is empty.
func (s *Subscription) endError() error {
	switch {
	case s.closed:
		return ErrSubscriptionClosed
	case s.end == nil:
		return nil
	case errors.Is(s.end, ErrTooOld):
		return s.end
	default:
		return s.end.With(MetadataResumeToken, s.log.tokens.token(s.scope, s.seen))
	}
}

// catchUp goes live or, if there is more to read first, reads the next page from the table. The queue is empty.
func (s *Subscription) catchUp(ctx context.Context) error {
	if s.log.join(s) {
		return nil
	}
	s.mu.Lock()
	after := s.seen
	s.mu.Unlock()
	p, err := s.log.readPage(ctx, after)
	if err != nil {
		return err
	}
	if p.trimmed > after {
		s.finish(s.log.tooOld(s.scope, p.trimmed))
		return nil
	}
	var matched queue
	for _, e := range p.events {
		if s.wants(e) {
			matched.push(e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.queue, s.seen, s.atHead = matched, p.through, p.atHead
	}
	return nil
}

func (s *Subscription) wants(e Event) bool { return s.match == nil || s.match(e) }

// offer puts what matches of a page into the buffer of a live subscription. It returns false if the subscription has
// ended. Only Run calls it, and nobody else changes seen of a live subscription.
func (s *Subscription) offer(p page) bool {
	s.mu.Lock()
	seen := s.seen
	s.mu.Unlock()
	if p.trimmed > seen {
		s.finish(s.log.tooOld(s.scope, p.trimmed))
		return false
	}
	var matched []Event
	for _, e := range p.events {
		if e.Seq > seen && s.wants(e) {
			matched = append(matched, e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	for _, e := range matched {
		if s.queue.len() >= s.log.buffer || s.queue.len() > 0 && s.queue.bytes+e.size() > s.log.bufferBytes {
			s.seen = e.Seq - 1 // what came before e did not match or is in the queue
			s.end = ErrSlowConsumer
			s.log.gauges.cut++ // handOut has the lock
			s.cut()
			s.notify()
			return false
		}
		s.queue.push(e)
	}
	s.seen = max(seen, p.through)
	if len(matched) > 0 {
		s.notify()
	}
	return true
}

// finish says that nothing comes after what is in the queue.
func (s *Subscription) finish(end *fault.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil {
		s.end = end
	}
	s.notify()
}

// notify lets Next look again. It never blocks.
func (s *Subscription) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// queue is a first-in first-out list of events that keeps its memory.
type queue struct {
	events []Event
	head   int
	bytes  int // of what is in it
}

func (q *queue) len() int { return len(q.events) - q.head }

func (q *queue) first() (Event, bool) {
	if q.len() == 0 {
		return Event{}, false
	}
	return q.events[q.head], true
}

func (q *queue) pop() (Event, bool) {
	e, ok := q.first()
	if !ok {
		return e, false
	}
	q.bytes -= e.size()
	q.events[q.head] = Event{} // let go of the payload
	if q.head++; q.head == len(q.events) {
		q.events, q.head = q.events[:0], 0
	}
	return e, true
}

func (q *queue) push(e Event) {
	if q.head > 0 && len(q.events) == cap(q.events) {
		n := copy(q.events, q.events[q.head:])
		clear(q.events[n:])
		q.events, q.head = q.events[:n], 0
	}
	q.events = append(q.events, e)
	q.bytes += e.size()
}
