// Package customers remembers who may be charged, so that a charge asks nobody over the network. What it knows of a
// customer it knows from auth; auth's events say when to forget it.
//
// What is promised: an event that was heard counts for every charge after it; while auth is not heard, what is known
// is good for a bounded time, and after that auth is asked each time, so that a charge is refused rather than made for
// somebody who may have been locked.
package customers

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Options say how a directory remembers. All fields are required.
type Options struct {
	// Source is asked for a customer who is not known.
	Source payments.Customers
	Clock  clock.Clock
	// Staleness is how long what is known is good after auth was last heard.
	Staleness time.Duration
	// Most is how many customers are remembered; the one that was not charged for longest is forgotten first.
	Most int
}

// Directory is payments.Customers with a memory. It is safe for concurrent use.
type Directory struct {
	opts Options

	mu    sync.Mutex
	heard time.Time // when auth was last heard; zero means never
	known map[payments.CustomerID]*list.Element
	order *list.List // of memory, the most recently charged first
	asked map[payments.CustomerID]*question
}

var _ payments.Customers = (*Directory)(nil)

// question is one that is under way. All who ask about the same customer meanwhile share it.
type question struct {
	done     chan struct{}
	customer payments.Customer
	err      error
	outdated bool // something has happened to the customer since it was asked
}

// memory is one customer who is known.
type memory struct {
	id       payments.CustomerID
	customer payments.Customer
}

// New returns a directory that knows nobody.
func New(opts Options) *Directory {
	return &Directory{
		opts: opts, known: make(map[payments.CustomerID]*list.Element), order: list.New(),
		asked: make(map[payments.CustomerID]*question),
	}
}

// Heard says that auth's events were heard up to now, and that what they told was given to Forget before.
func (d *Directory) Heard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = d.opts.Clock.Now()
}

// Resumed says that auth's events will be heard again, from where they broke off. Where that was longer ago than what
// is known is good for, everybody is forgotten: the first response of the stream comes before the events that were
// missed, and would make all of it good again.
func (d *Directory) Resumed() {
	d.mu.Lock()
	stale := d.stale()
	d.mu.Unlock()
	if stale {
		d.ForgetAll() // what is learned in between is of no use, and does no harm
	}
}

// stale says whether auth was not heard for too long.
func (d *Directory) stale() bool {
	return d.heard.IsZero() || d.opts.Clock.Now().Sub(d.heard) > d.opts.Staleness
}

// Forget forgets a customer to whom something has happened. Charges that come after it ask anew.
func (d *Directory) Forget(id payments.CustomerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.known[id]; e != nil {
		d.drop(e)
	}
	if q := d.asked[id]; q != nil {
		q.outdated = true
		delete(d.asked, id)
	}
}

// ForgetAll forgets everybody: events may have been missed.
func (d *Directory) ForgetAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order.Init()
	clear(d.known)
	for _, q := range d.asked {
		q.outdated = true
	}
	clear(d.asked)
}

// Get implements payments.Customers.
func (d *Directory) Get(ctx context.Context, id payments.CustomerID) (payments.Customer, error) {
	for {
		d.mu.Lock()
		if c, ok := d.fresh(id); ok {
			d.mu.Unlock()
			return c, nil
		}
		q := d.asked[id]
		if q == nil {
			q = &question{done: make(chan struct{})}
			d.asked[id] = q
			d.mu.Unlock()
			return d.ask(ctx, id, q)
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return payments.Customer{}, context.Cause(ctx)
		case <-q.done:
		}
		// An answer that is older than an event, and one that whoever asked did not wait for, is asked for anew.
		if !q.outdated && !errors.Is(q.err, errGone) {
			return q.customer, q.err
		}
	}
}

// errGone: whoever asked the question went away before it was answered.
var errGone = errors.New("the question was given up")

// fresh returns a customer who is known well enough.
func (d *Directory) fresh(id payments.CustomerID) (payments.Customer, bool) {
	e := d.known[id]
	if e == nil || d.stale() {
		return payments.Customer{}, false
	}
	d.order.MoveToFront(e)
	return e.Value.(memory).customer, true
}

// ask asks the source, and remembers what it says unless something happened meanwhile.
func (d *Directory) ask(ctx context.Context, id payments.CustomerID, q *question) (payments.Customer, error) {
	customer, err := d.opts.Source.Get(ctx, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	q.customer, q.err = customer, err
	if err != nil && ctx.Err() != nil {
		q.err = errGone
	}
	if d.asked[id] == q {
		delete(d.asked, id)
	}
	close(q.done)
	if err == nil && !q.outdated {
		d.remember(id, customer)
	}
	return customer, err
}

func (d *Directory) remember(id payments.CustomerID, c payments.Customer) {
	if e := d.known[id]; e != nil {
		d.drop(e)
	}
	d.known[id] = d.order.PushFront(memory{id, c})
	for d.order.Len() > d.opts.Most {
		d.drop(d.order.Back())
	}
}

func (d *Directory) drop(e *list.Element) {
	d.order.Remove(e)
	delete(d.known, e.Value.(memory).id)
}
