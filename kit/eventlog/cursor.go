package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// cursor is how far a consumer has come; version is 0 where it has none.
type cursor struct {
	token   string
	version int64
}

// cursor reads the cursor.
func (c *Consumer[E]) cursor(ctx context.Context) (cursor, error) {
	var at cursor
	err := c.opts.DB.ReadOne(ctx, func(q sqldb.Querier) error {
		return q.QueryRowContext(ctx, `SELECT token, version FROM event_cursor WHERE name = $1`, c.opts.Name).Scan(&at.token, &at.version)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return cursor{}, nil
	}
	if err != nil {
		return cursor{}, fmt.Errorf("read the cursor: %w", err)
	}
	return at, nil
}

// move moves the cursor from where it was read, or returns errElsewhere.
func (c *Consumer[E]) move(ctx context.Context, tx *sqldb.Tx, from cursor, token string) error {
	statement := `UPDATE event_cursor SET token = $1, version = version + 1, moved_at = $2 WHERE name = $3 AND version = $4`
	if from.version == 0 {
		statement = `INSERT INTO event_cursor (token, moved_at, name, version) VALUES ($1, $2, $3, $4 + 1) ON CONFLICT DO NOTHING`
	}
	res, err := tx.ExecContext(ctx, statement, token, c.opts.Clock.Now().UnixMicro(), c.opts.Name, from.version)
	if err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	if n == 0 {
		return errElsewhere
	}
	return nil
}

// ConsumerStatus is how a consumer is doing, for gauges.
type ConsumerStatus struct {
	// Connected says whether the source is open.
	Connected bool
	// Standby says that another process follows with the same cursor.
	Standby bool
	// Applied counts the events whose effect this process has committed, Rebuilds the calls of Rebuild, and Breaks the errors
	// after which it went on.
	Applied, Rebuilds, Breaks int64
	// LastEvent is when the last event happened that was applied, and LastContact when the source was last heard of. Zero
	// means never.
	LastEvent, LastContact time.Time
	// Lag is how long the effects are behind the source, as far as this process knows: the age of the oldest event that
	// waits, the time since the source was last heard of while it is broken, and otherwise 0. It is 0 on standby.
	Lag time.Duration
}

// consumerState is a status as it is kept; Consumer.mu guards it.
type consumerState struct {
	ConsumerStatus
	waiting time.Time // when the oldest event happened that is not applied; zero if none waits
	started time.Time
}

// Status returns how the consumer is doing.
func (c *Consumer[E]) Status() ConsumerStatus {
	now := c.opts.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status.ConsumerStatus
	switch {
	case s.Standby || c.status.started.IsZero():
	case !c.status.waiting.IsZero():
		s.Lag = now.Sub(c.status.waiting)
	case s.Connected:
	case s.LastContact.IsZero():
		s.Lag = now.Sub(c.status.started)
	default:
		s.Lag = now.Sub(s.LastContact)
	}
	s.Lag = max(s.Lag, 0)
	return s
}

// note changes the status.
func (c *Consumer[E]) note(change func(s *consumerState)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

func (c *Consumer[E]) began() {
	now := c.opts.Clock.Now()
	c.note(func(s *consumerState) { s.started = now })
}

func (c *Consumer[E]) heard(at time.Time) {
	c.note(func(s *consumerState) { s.Connected, s.LastContact = true, at })
}

func (c *Consumer[E]) rebuilding() { c.note(func(s *consumerState) { s.Rebuilds++ }) }

func (c *Consumer[E]) working(oldest time.Time) {
	c.note(func(s *consumerState) { s.waiting = oldest })
}

func (c *Consumer[E]) idle(idle bool) {
	if idle {
		c.note(func(s *consumerState) { s.waiting = time.Time{} })
	}
}

func (c *Consumer[E]) applied(batch []item[E]) {
	n, at := int64(0), time.Time{}
	for _, i := range batch {
		if i.event != nil {
			n++
			at = i.at
		}
	}
	c.note(func(s *consumerState) {
		s.Standby = false
		if s.Applied += n; n > 0 {
			s.LastEvent = at
		}
	})
}

// broke takes note of the error that ended a stream, and reports it.
func (c *Consumer[E]) broke(err error) {
	standby := errors.Is(err, errElsewhere)
	c.note(func(s *consumerState) {
		s.Connected, s.Standby = false, standby
		if !standby {
			s.Breaks++
		}
	})
	if c.opts.Report != nil && !standby {
		c.opts.Report(fmt.Errorf("consumer %s: %w", c.opts.Name, err))
	}
}
