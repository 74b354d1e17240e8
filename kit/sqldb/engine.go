package sqldb

import (
	"context"
	"fmt"
	"regexp"
	"sync"
)

// Engine is a kind of database. Its value is also the name of the folder that has the migrations for it.
type Engine string

// The engines that there are.
const (
	SQLite     Engine = "sqlite"
	PostgreSQL Engine = "postgres"
)

// ForUpdate returns what stands at the end of a SELECT whose rows the transaction is going to change, so that no other
// transaction changes them in between: " FOR UPDATE" on PostgreSQL, and nothing on SQLite, which has one writer.
func (e Engine) ForUpdate() string { return e.Pick("", " FOR UPDATE") }

// Greatest returns the name of the function that returns the greatest of its arguments. With NULL among them the engines
// differ: SQLite returns NULL, PostgreSQL leaves it out.
func (e Engine) Greatest() string { return e.Pick("max", "greatest") }

// Least returns the name of the function that returns the least of its arguments; see Greatest.
func (e Engine) Least() string { return e.Pick("min", "least") }

// Pick returns the text for this engine: for a statement that the engines do not share.
func (e Engine) Pick(sqlite, postgres string) string {
	if e == PostgreSQL {
		return postgres
	}
	return sqlite
}

// engine does what a DB promises, on one kind of database. DB counts who is inside, so that close comes last.
type engine interface {
	kind() Engine
	read(ctx context.Context, fn func(q Querier) error) error
	readOne(ctx context.Context, fn func(q Querier) error) error
	readRows(ctx context.Context, each func(row Row) error, query string, args []any) error
	// write runs one transaction, and the hooks of it once it is committed.
	write(ctx context.Context, fn func(tx *Tx) error) error
	healthy(ctx context.Context) error
	// listen calls wake when another process has committed a Notify of the channel, or may have, until ctx ends.
	listen(ctx context.Context, channel string, wake func())
	// notify tells other processes of the channels, soon, and does not wait for it.
	notify(channels []string)
	// failed is closed when only opening the database anew can help.
	failed() <-chan struct{}
	stats() Stats
	name() string // of the database, for operators
	close() error
}

var channelName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Notify tells all who Listen to the channel, in all processes that have the database open, that this transaction is
// committed. A channel is named by lower-case letters, digits and "_", at most 63, beginning with a letter.
//
// Listeners of this process are told before Write returns. Other processes are told right afterwards, by a message of its
// own, because PostgreSQL lets only one transaction at a time commit that has a NOTIFY in it; a process that dies in
// between tells nobody, so whoever listens also looks by itself now and then.
func (t *Tx) Notify(channel string) { t.channels = append(t.channels, channel) }

// Listen calls fn when it begins to listen, soon after each commit of a transaction that called Notify with the channel,
// and whenever it may have missed one. Calls follow one another, and one call can stand for several commits. fn may use
// the database. On PostgreSQL it takes one connection beside those of Options.Connections, which is opened again when it
// breaks; on SQLite all who can notify are in this process.
//
// It returns nil when ctx ends, and ErrClosed.
func (db *DB) Listen(ctx context.Context, channel string, fn func()) error {
	if !channelName.MatchString(channel) {
		return fmt.Errorf("%q is not the name of a channel", channel)
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	ctx, cancel := context.WithCancel(ctx)
	wake, leave := db.listeners.join(channel)
	defer leave()
	var remote sync.WaitGroup
	defer remote.Wait()
	defer cancel()
	remote.Go(func() { db.engine.listen(ctx, channel, wake.signal) })
	for {
		if ctx.Err() != nil {
			return nil
		}
		fn()
		select {
		case <-ctx.Done():
			return nil
		case <-db.closing:
			return ErrClosed
		case <-wake:
		}
	}
}

// wake is one listener; it holds a value when there is something to tell.
type wake chan struct{}

// signal never blocks.
func (w wake) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// listeners are those of this process.
type listeners struct {
	mu  sync.Mutex
	all map[string]map[wake]struct{}
}

func (l *listeners) join(channel string) (w wake, leave func()) {
	w = make(wake, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[string]map[wake]struct{})
	}
	if l.all[channel] == nil {
		l.all[channel] = make(map[wake]struct{})
	}
	l.all[channel][w] = struct{}{}
	return w, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all[channel], w)
	}
}

// tell wakes who listens to the channels.
func (l *listeners) tell(channels []string) {
	if len(channels) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range channels {
		for w := range l.all[c] {
			w.signal()
		}
	}
}
