package server

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/policy"
)

func TestACrowdOfHealthChecksIsNeverTurnedAway(t *testing.T) {
	const crowd = 3000
	const name = "/grpc.health.v1.Health/Check"
	health, ok := policy.Framework(name)
	if !ok {
		t.Fatal("health has no policy")
	}
	own := *health
	own.Framework = false
	for what, m := range map[string]*policy.Method{"health": health, "a method of ours": &own} {
		s := &Server{cfg: Config{ShedLoad: true, Clock: clock.System()}, policies: policy.Table{name: m}}
		release := make(chan struct{})
		var inside, over sync.WaitGroup
		inside.Add(crowd)
		run := admit(s).around(func(*call) error {
			inside.Done()
			<-release
			return nil
		})
		refused := make(chan error, crowd)
		for range crowd {
			over.Go(func() {
				c := &call{Call: identity.Call{Context: t.Context()}, server: s, method: m}
				c.until(time.Now().Add(time.Minute), errTimeout)
				if err := run(c); err != nil {
					refused <- err
					inside.Done()
				}
			})
		}
		inside.Wait() // each is in, or was refused
		close(release)
		over.Wait()
		if n := len(refused); m.Framework != (n == 0) {
			t.Errorf("%s: %d of %d were refused", what, n, crowd)
		} else if n > 0 {
			if err := <-refused; !errors.Is(err, errOverloaded) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}
