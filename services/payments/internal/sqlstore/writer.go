package sqlstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	// maxWaiting is how many commands wait at most; one more is refused.
	maxWaiting = 8192
	// maxBatch is how many commands are written by one transaction at most.
	maxBatch = 512
	// batchTimeout bounds one transaction. Callers who have less time than that do not wait for it.
	batchTimeout = 10 * time.Second
)

// item is a command that waits to be written.
type item struct {
	command payments.Command
	since   time.Time
	taken   atomic.Bool // by a batch, or by its caller, who then goes away
	done    chan struct{}

	outcome payments.Outcome // once done is closed, as err
	err     error
}

// writer gathers the commands that wait while a batch is written, and writes them by the next one. There is no timer:
// a command that comes alone is written alone, at once, and the busier it gets the more share a transaction, whose
// price is what limits.
type writer struct {
	store *Store
	queue chan *item
	most  int           // in a batch
	ended chan struct{} // closed when the last batch was written

	mu     sync.RWMutex // held to put something into the queue, and to close it
	closed bool
}

func newWriter(s *Store) *writer {
	w := &writer{store: s, queue: make(chan *item, maxWaiting), most: maxBatch, ended: make(chan struct{})}
	go w.run()
	return w
}

// close writes what waits and ends the writer.
func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.ended
}

func (w *writer) put(it *item) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return sqldb.ErrClosed
	}
	select {
	case w.queue <- it:
		return nil
	default:
		return payments.ErrOverloaded
	}
}

// Do implements payments.Store.
func (s *Store) Do(ctx context.Context, c payments.Command) (payments.Outcome, error) {
	if ctx.Err() != nil {
		return payments.Outcome{}, context.Cause(ctx)
	}
	it := &item{command: c, since: s.clock.Now(), done: make(chan struct{})}
	if err := s.writer.put(it); err != nil {
		return payments.Outcome{}, err
	}
	select {
	case <-it.done:
		return it.outcome, it.err
	case <-ctx.Done():
	}
	if it.taken.CompareAndSwap(false, true) {
		return payments.Outcome{}, context.Cause(ctx) // no batch has it
	}
	select {
	case <-it.done: // at the last moment
		return it.outcome, it.err
	default:
		return payments.Outcome{}, sqldb.ErrOutcomeUnknown.Because(context.Cause(ctx))
	}
}

// run writes batch after batch until the queue is closed and empty.
func (w *writer) run() {
	done := make(chan []*item, 1)
	defer close(done)
	go func() { // so that the next batch does not wait until all callers are awake
		defer close(w.ended)
		for batch := range done {
			for _, it := range batch {
				close(it.done)
			}
		}
	}()
	for it := range w.queue {
		batch := w.take(make([]*item, 0, min(w.most, 1+len(w.queue))), it)
	more:
		for len(batch) < w.most {
			select {
			case it, ok := <-w.queue:
				if !ok {
					break more
				}
				batch = w.take(batch, it)
			default:
				break more
			}
		}
		if len(batch) > 0 {
			w.store.metrics.batch(batch, w.store.clock.Now(), len(w.queue))
			w.store.writeAll(batch, func(written []*item) { done <- written })
		}
	}
}

// take adds an item whose caller still waits.
func (w *writer) take(batch []*item, it *item) []*item {
	if !it.taken.CompareAndSwap(false, true) {
		return batch
	}
	return append(batch, it)
}

// writeAll writes a batch and tells done of all that are in it. Where it cannot be written for a reason that may lie in one
// command, each half is tried for itself, so that in the end that one fails alone.
func (s *Store) writeAll(batch []*item, done func([]*item)) {
	err := s.writeBatch(batch)
	if err != nil && len(batch) > 1 && mayBeOne(err) {
		half := len(batch) / 2
		s.writeAll(batch[:half], done)
		s.writeAll(batch[half:], done)
		return
	}
	if err != nil {
		for _, it := range batch {
			it.outcome, it.err = payments.Outcome{}, err
		}
	}
	done(batch)
}

// mayBeOne says whether an error of a batch may come from what one command writes: nothing is known of the storage
// that would meet all of them.
func mayBeOne(err error) bool {
	f, ok := fault.As(err)
	return !ok || f.Kind() == fault.Internal && !errors.Is(err, sqldb.ErrStorageFailed) && !errors.Is(err, sqldb.ErrClosed)
}

// writeBatch runs the commands one after another and writes what they do by one transaction, or one command by one
// statement where that can be. The items have their outcomes then; with an error none of them counts.
func (s *Store) writeBatch(batch []*item) error {
	unknown := false
	if len(batch) == 1 {
		written, maybe := s.writeAlone(batch[0])
		if written {
			return nil
		}
		unknown = maybe
	}
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	commands := make([]payments.Command, len(batch))
	for i, it := range batch {
		commands[i] = it.command
	}
	var (
		loaded  payments.Loaded
		changes payments.Changes
	)
	err := s.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		if loaded, err = s.load(ctx, tx, commands); err != nil {
			return err
		}
		work := payments.NewWork(loaded, s.clock.Now(), s.newID)
		for i, it := range batch {
			it.outcome, it.err = work.Do(commands[i])
		}
		if changes = work.Changes(); changes.Empty() {
			return tx.Confirm(ctx) // some may be outcomes of before
		}
		return s.store(ctx, tx, &loaded, &changes)
	})
	if err != nil {
		s.cache.forget()
		if unknown && !errors.Is(err, sqldb.ErrOutcomeUnknown) {
			return sqldb.ErrOutcomeUnknown.Because(err)
		}
		return err
	}
	s.cache.committed(&loaded, &changes)
	return nil
}
