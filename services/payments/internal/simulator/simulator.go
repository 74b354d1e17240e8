// Package simulator is a processor that moves no money: what becomes of a payment is said by its token. Some tokens it
// answers in the process, as a wallet of one's own would; others behave as a processor behind a network does, at its
// worst. Capturing, canceling and giving back have no token, and are approved at once, but for payments that were made
// with a token which says otherwise.
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

// The tokens of payments that are approved at once, and of which something is declined later, with payments.Declined. A
// late answer is that of a processor behind a network: the first question fails. Which payments those are is remembered
// in the process, of up to Remembered payments: another process, or one that was started since, approves.
const (
	CaptureDeclined     = "tok_capture_declined"
	RefundDeclined      = "tok_refund_declined"
	LateCaptureDeclined = "tok_late_capture_declined"
	LateRefundDeclined  = "tok_late_refund_declined"
)

// Remembered is of how many payments it is remembered that something of them is declined. The oldest is forgotten first.
const Remembered = 10_000

// Delay is how long a slow processor takes.
const Delay = time.Second

// ErrUnreachable: the processor could not be asked, or its answer was lost: nobody knows which.
var ErrUnreachable = errors.New("the simulated processor cannot be reached")

// Simulator is the processor. It is safe for concurrent use. The zero value is not usable: see New.
type Simulator struct {
	clock clock.Clock

	mu     sync.Mutex
	asked  map[string]bool // by key: operations whose first question has failed
	tokens map[payments.ID]string
	order  []payments.ID // of tokens; once it is full, next is the oldest
	next   int
}

var _ payments.Processor = (*Simulator)(nil)

// New returns a simulator.
func New(c clock.Clock) *Simulator {
	return &Simulator{clock: c, asked: make(map[string]bool), tokens: make(map[payments.ID]string)}
}

// Immediate implements payments.Processor: only what a processor behind a network is asked for is not.
func (s *Simulator) Immediate(op payments.Operation) bool {
	switch op.Token {
	case Slow, Flaky, Timeout, LostResponse:
		return false
	}
	_, late := s.declines(op)
	return !late
}

// Process implements payments.Processor.
func (s *Simulator) Process(ctx context.Context, op payments.Operation) (payments.Decline, error) {
	switch op.Token {
	case "":
		declined, late := s.declines(op)
		switch {
		case late && s.first(op.Key):
			return payments.NotDeclined, ErrUnreachable
		case declined:
			return payments.Declined, nil
		}
		return payments.NotDeclined, nil
	case OK:
		return payments.NotDeclined, nil
	case CaptureDeclined, RefundDeclined, LateCaptureDeclined, LateRefundDeclined:
		s.remember(op.Payment, op.Token)
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

// declines says whether an operation is declined because of the token that its payment was made with, and whether that
// is answered late.
func (s *Simulator) declines(op payments.Operation) (declined, late bool) {
	switch op.Kind {
	case payments.OpCapture:
		token := s.tokenOf(op.Payment)
		return token == CaptureDeclined || token == LateCaptureDeclined, token == LateCaptureDeclined
	case payments.OpRefund:
		token := s.tokenOf(op.Payment)
		return token == RefundDeclined || token == LateRefundDeclined, token == LateRefundDeclined
	}
	return false, false
}

func (s *Simulator) tokenOf(id payments.ID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[id]
}

// remember remembers the token that a payment was made with.
func (s *Simulator) remember(id payments.ID, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.tokens[id]; known {
		return
	}
	s.tokens[id] = token
	if len(s.order) < Remembered {
		s.order = append(s.order, id)
		return
	}
	delete(s.tokens, s.order[s.next])
	s.order[s.next] = id
	s.next = (s.next + 1) % Remembered
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
