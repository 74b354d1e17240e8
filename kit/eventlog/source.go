package eventlog

import (
	"context"
	"errors"
	"time"
)

// sourceHeartbeat is how often a quiet stream of a log says where it stands.
const sourceHeartbeat = time.Minute

// Source returns the log as a source of the events that the watch wants; the token of the watch is not used.
func (l *Log) Source(w Watch) Source[Event] { return logSource{l, w} }

type logSource struct {
	log   *Log
	watch Watch
}

// Open subscribes until ctx ends.
func (s logSource) Open(ctx context.Context, token string) (Stream[Event], error) {
	w := s.watch
	w.Token = token
	sub, err := s.log.Subscribe(ctx, w)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, sub.Close)
	return &logStream{log: s.log, sub: sub, tell: true}, nil
}

type logStream struct {
	log  *Log
	sub  *Subscription
	tell bool // where it stands
}

var errQuiet = errors.New("quiet")

// Next waits for the next event, for as long as a heartbeat.
func (s *logStream) Next(ctx context.Context) (*Event, string, error) {
	if s.tell {
		s.tell = false
		return nil, s.sub.Position(), nil
	}
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.log.clock.After(sourceHeartbeat):
			cancel(errQuiet)
		case <-waiting.Done():
		}
	}()
	e, token, err := s.sub.Next(waiting)
	switch {
	case err == nil:
		return &e, token, nil
	case ctx.Err() == nil && errors.Is(context.Cause(waiting), errQuiet):
		return nil, s.sub.Position(), nil
	default:
		return nil, "", err
	}
}
