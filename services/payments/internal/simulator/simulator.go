// Package simulator is a processor that moves no money: what becomes of a payment is said by its token. Some tokens it
// answers in the process, as a wallet of one's own would; others behave as a processor behind a network does, at its
// worst.
package simulator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// The tokens that are answered at once. The empty token, for what the customer has on file, is approved. Any other
// token is declined with payments.InvalidToken.
const (
	OK                = "tok_ok"
	Declined          = "tok_declined"
	InsufficientFunds = "tok_insufficient_funds"
	ExpiredCard       = "tok_expired_card"
)

// The tokens of a processor behind a network. All of them are approved in the end.
const (
	Slow         = "tok_slow"          // answers after Delay
	Flaky        = "tok_flaky"         // fails at the first question, having done nothing
	Timeout      = "tok_timeout"       // does not answer the first question
	LostResponse = "tok_lost_response" // does what it is asked for, and its first answer is lost
)

// Delay is how long a slow processor takes.
const Delay = time.Second

// ErrUnreachable: the processor could not be asked, or its answer was lost: nobody knows which.
var ErrUnreachable = errors.New("the simulated processor cannot be reached")

// Simulator is the processor. It is safe for concurrent use. The zero value is not usable: see New.
type Simulator struct {
	clock clock.Clock

	mu    sync.Mutex
	asked map[string]bool // by key: operations whose first question has failed
}

var _ payments.Processor = (*Simulator)(nil)

// New returns a simulator.
func New(c clock.Clock) *Simulator { return &Simulator{clock: c, asked: make(map[string]bool)} }

// Immediate implements payments.Processor: only the tokens of a processor behind a network are not.
func (s *Simulator) Immediate(op payments.Operation) bool {
	switch op.Token {
	case Slow, Flaky, Timeout, LostResponse:
		return false
	}
	return true
}

// Process implements payments.Processor.
func (s *Simulator) Process(ctx context.Context, op payments.Operation) (payments.Decline, error) {
	switch op.Token {
	case "", OK:
		return payments.NotDeclined, nil
	case Declined:
		return payments.Declined, nil
	case InsufficientFunds:
		return payments.InsufficientFunds, nil
	case ExpiredCard:
		return payments.ExpiredCard, nil
	case Slow:
		return payments.NotDeclined, s.wait(ctx)
	case Flaky, LostResponse:
		if s.first(op.Key) {
			return payments.NotDeclined, ErrUnreachable
		}
		return payments.NotDeclined, nil
	case Timeout:
		if s.first(op.Key) {
			<-ctx.Done()
			return payments.NotDeclined, context.Cause(ctx)
		}
		return payments.NotDeclined, nil
	}
	return payments.InvalidToken, nil
}

// first says whether the operation is asked for the first time. The second time it is forgotten: it is answered then.
func (s *Simulator) first(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[key] {
		delete(s.asked, key)
		return false
	}
	s.asked[key] = true
	return true
}

func (s *Simulator) wait(ctx context.Context) error {
	select {
	case <-s.clock.After(Delay):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
