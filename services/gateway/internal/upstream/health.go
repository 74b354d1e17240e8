package upstream

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

const (
	checkEvery   = 5 * time.Second // and whenever a connection comes or goes
	checkTimeout = 2 * time.Second
	checkFresh   = time.Second // an answer that young is given again
)

// State is what a health check found.
type State string

// The states, as /readyz shows them.
const (
	Serving    State = "SERVING"
	NotServing State = "NOT_SERVING" // it says so, or it does not answer
)

// Health is the state of one service.
type Health struct {
	// Name is the name of the service.
	Name string
	// State is whether it can do its work.
	State State
}

// health remembers what the checks found.
type health struct {
	mu    sync.Mutex
	state map[string]State
	ready chan struct{}
	told  bool

	asking sync.Mutex // guards what follows; held while the services are asked
	asked  time.Time
	answer []Health
}

func (h *health) init(upstreams []contract.Upstream) {
	h.state = make(map[string]State, len(upstreams))
	h.ready = make(chan struct{})
	for _, u := range upstreams {
		h.state[u.Name] = "" // nobody knows yet
	}
}

// Ready returns a channel that is closed once Watch has found every service serving at the same time.
func (s *Set) Ready() <-chan struct{} { return s.health.ready }

// Watch keeps asking the services until ctx ends and reports every change of state. report is called by one goroutine
// per service.
func (s *Set) Watch(ctx context.Context, report func(Health)) {
	var wg sync.WaitGroup
	for name, conn := range s.conns {
		wg.Go(func() { s.watch(ctx, name, conn, report) })
	}
	wg.Wait()
}

func (s *Set) watch(ctx context.Context, name string, conn *grpc.ClientConn, report func(Health)) {
	for {
		before := conn.GetState()
		if before == connectivity.Idle {
			conn.Connect()
		}
		state, err := ask(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		if s.health.set(name, state) {
			if state == Serving {
				s.cfg.Log.Info("service is serving", "upstream", name)
			} else {
				s.cfg.Log.Warn("service is not serving", "upstream", name, "state", string(state), "cause", err)
			}
			report(Health{Name: name, State: state})
		}
		waiting, cancel := context.WithCancel(ctx)
		changed := make(chan struct{})
		go func() {
			defer close(changed)
			conn.WaitForStateChange(waiting, before)
		}()
		select {
		case <-changed:
		case <-s.cfg.Clock.After(checkEvery):
		case <-ctx.Done():
		}
		cancel()
		<-changed
		if ctx.Err() != nil {
			return
		}
	}
}

// set remembers a state and says whether it is news.
func (h *health) set(name string, state State) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.state[name]
	h.state[name] = state
	if !h.told {
		for _, st := range h.state {
			if st != Serving {
				return was != state
			}
		}
		h.told = true
		close(h.ready)
	}
	return was != state
}

// Check asks every service now, and returns what they said in the order of the contract. Callers that come within a
// second of each other share one answer, so that whoever asks the edge often asks the services once.
func (s *Set) Check(ctx context.Context) []Health {
	h := &s.health
	h.asking.Lock()
	defer h.asking.Unlock()
	if now := s.cfg.Clock.Now(); h.answer != nil && now.Sub(h.asked) < checkFresh && !now.Before(h.asked) {
		return h.answer
	}
	upstreams := s.cfg.Contract.Upstreams()
	answer := make([]Health, len(upstreams))
	var wg sync.WaitGroup
	for i, u := range upstreams {
		wg.Go(func() {
			// Whoever asked may leave; the others wait for this answer too.
			state, _ := ask(context.WithoutCancel(ctx), s.conns[u.Name])
			answer[i] = Health{Name: u.Name, State: state}
		})
	}
	wg.Wait()
	h.answer, h.asked = answer, s.cfg.Clock.Now()
	return answer
}

// ask makes one health check. The error says why the state is not Serving, for the log.
func ask(ctx context.Context, conn *grpc.ClientConn) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING:
		return Serving, nil
	case err == nil:
		return NotServing, status.Error(codes.Unavailable, resp.GetStatus().String())
	default:
		return NotServing, err
	}
}
