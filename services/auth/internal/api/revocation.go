package api

import (
	"context"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Revocations returns the feed of what ends access tokens, as this service reads it in its own log. Others read the same
// through WatchUserEvents.
func Revocations(events *eventlog.Log) token.Open {
	return func(ctx context.Context, point string, since time.Time) (func() (token.News, error), error) {
		sub, err := events.Subscribe(ctx, eventlog.Watch{
			Scope: "auth.v1 revocations", Token: point, Since: since,
			Match: func(e eventlog.Event) bool { return revocationOf(eventOf(e)) != nil },
		})
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, sub.Close)
		return news(ctx, sub), nil
	}
}

// news returns what waits for the next revocation, or for a heartbeat.
func news(ctx context.Context, sub *eventlog.Subscription) func() (token.News, error) {
	told := false
	return func() (token.News, error) {
		if !told {
			told = true
			return token.News{Point: sub.Position()}, nil
		}
		quiet, cancel := context.WithTimeout(ctx, server.Heartbeat)
		defer cancel()
		e, point, err := sub.Next(quiet)
		switch {
		case err == nil:
			return token.News{Revocation: revocationOf(eventOf(e)), Point: point}, nil
		case quiet.Err() != nil && ctx.Err() == nil:
			return token.News{Point: sub.Position()}, nil
		default:
			return token.News{}, err
		}
	}
}

// revocationOf returns which tokens are good no more because of an event, nil for one that ends none.
func revocationOf(e auth.Event) *token.Revocation {
	ended, ok := e.Ended()
	if !ok {
		return nil
	}
	return &token.Revocation{
		UserID: string(e.UserID), SessionID: string(ended.SessionID), Except: string(ended.Except), At: e.At,
	}
}
