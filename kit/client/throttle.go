package client

import (
	"sync"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// The brake on repetitions (gRFC A6): a failure takes a token, an answer puts a tenth of one back, and while half of the
// tokens are gone nothing is repeated. So repetitions are at most a tenth of the calls once a service is in trouble.
// grpc-go's own brake, of retries, has the same numbers by the service config.
const (
	maxTokens  = 100
	tokenRatio = 0.1
)

// throttle is the brake on the hedges of one connection. A nil one never brakes.
type throttle struct {
	mu     sync.Mutex
	tokens float64
}

func newThrottle() *throttle { return &throttle{tokens: maxTokens} }

// allows reports whether a call may be sent once more.
func (t *throttle) allows() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tokens > maxTokens/2
}

// counted takes how a call ended into account and returns it.
func (t *throttle) counted(err error) error {
	if t == nil {
		return err
	}
	if err != nil {
		if grpcfault.FromError(err).Kind() == fault.Unavailable {
			t.failed()
		}
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens = min(t.tokens+tokenRatio, maxTokens)
	return nil
}

// failed takes a failure into account.
func (t *throttle) failed() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens = max(t.tokens-1, 0)
}
