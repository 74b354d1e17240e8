package sqldb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	healthWait = 2 * time.Second
	noticeWait = 2 * time.Second
	// firstListenPause and lastListenPause are the pauses between attempts to listen again.
	firstListenPause, lastListenPause = 50 * time.Millisecond, 2 * time.Second
)

func (s *server) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	return s.retry(ctx, func() (err, again error) {
		return s.tryOne(ctx, s.side, func(q Querier) error {
			var standby, readOnly bool
			err := q.QueryRowContext(ctx, `SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'`).Scan(&standby, &readOnly)
			switch {
			case err != nil:
				return err
			case standby:
				return ErrUnavailable.Because(errors.New("the server is a standby"))
			case readOnly:
				return ErrUnavailable.Because(errors.New("the server takes no writes"))
			}
			return nil
		})
	})
}

// notices are the channels whose notifications are to be sent.
type notices struct {
	mu      sync.Mutex
	pending map[string]struct{}
	sending bool
	group   sync.WaitGroup
}

// add adds channels and says whether somebody must begin to send.
func (n *notices) add(channels []string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending == nil {
		n.pending = make(map[string]struct{})
	}
	for _, c := range channels {
		n.pending[c] = struct{}{}
	}
	if n.sending {
		return false
	}
	n.sending = true
	n.group.Add(1)
	return true
}

// next returns what is to be sent, or nothing, and then sending is over.
func (n *notices) next() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var channels []string
	for c := range n.pending {
		channels = append(channels, c)
	}
	clear(n.pending)
	if len(channels) == 0 {
		n.sending = false
		n.group.Done()
	}
	return channels
}

func (n *notices) wait() { n.group.Wait() }

// announce tells of a commit: this process at once, the others soon.
func (s *server) announce(channels []string) {
	if len(channels) == 0 {
		return
	}
	s.listeners.tell(channels)
	s.notify(channels)
}

// notify sends notifications beside the transactions that they tell of. While one is on its way, what comes becomes one
// more: so however many commits there are, they wait for none, and the server has few to hand on.
func (s *server) notify(channels []string) {
	if !s.notices.add(channels) {
		return
	}
	go func() {
		for {
			channels := s.notices.next()
			if len(channels) == 0 {
				return
			}
			// One that is lost is made up for by whoever listens and looks by itself; see Tx.Notify.
			_ = s.send(channels)
		}
	}()
}

func (s *server) send(channels []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), noticeWait)
	defer cancel()
	return s.retry(ctx, func() (err, again error) {
		return s.tryOne(ctx, s.side, func(q Querier) error {
			rows, err := q.QueryContext(ctx, `SELECT pg_notify(c, $1) FROM unnest($2::text[]) AS c`, s.self, channels)
			if err != nil {
				return err
			}
			return rows.Close()
		})
	})
}

func (s *server) listen(ctx context.Context, channel string, wake func()) {
	for n := 0; ctx.Err() == nil; n++ {
		if s.follow(ctx, channel, wake) {
			n = 0
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-s.clock.After(s.jitter.of(min(firstListenPause<<min(n, 10), lastListenPause))):
		}
	}
}

// follow listens on a connection of its own until that or ctx ends. It says whether it had begun to listen.
func (s *server) follow(ctx context.Context, channel string, wake func()) bool {
	conn, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return false
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingWait)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, fmt.Sprintf("listen %s", pgx.Identifier{channel}.Sanitize())); err != nil {
		return false
	}
	wake() // what was notified before was missed
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return true
		}
		if notification.Payload != s.self { // those of this process have been told
			wake()
		}
	}
}
