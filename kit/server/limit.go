package server

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
)

var errRate = fault.New(fault.ResourceExhausted, "RATE_LIMITED", "too many calls").WithDomain(fault.Domain)

// limit holds callers to the rate of the method, each by a bucket of their own: by who they are or where they come
// from once a call, by what they ask for on each message. Then it lets in as many calls of the method as the server can
// do in time (overload.go): unary ones alone, because a stream costs what it carries and not that it is open, and never
// those of health and reflection, which have to answer when nothing else does. Last, it holds each message to the
// method's size.
func limit(s *Server) step {
	buckets := make(map[*policy.Method]*buckets)
	admissions := make(map[*policy.Method]*admission)
	shared := &processors{}
	for _, m := range s.policies {
		if m.Rate != nil {
			buckets[m] = newBuckets(m.Rate)
		}
		if !m.Framework && !m.ClientStream && !m.ServerStream {
			admissions[m] = newAdmission(s.cfg.Clock, shared)
		}
	}
	take := func(c *call, key string) error {
		if wait := buckets[c.method].take(key, s.cfg.Clock.Now()); wait > 0 {
			return errRate.WithRetryAfter(wait)
		}
		return nil
	}
	return step{
		name: "limit",
		around: func(next handler) handler {
			return func(c *call) error {
				if r := c.method.Rate; r != nil {
					var err error
					switch r.Per {
					case policyv1.RateKey_RATE_KEY_CALLER:
						err = take(c, c.Caller.Key())
					case policyv1.RateKey_RATE_KEY_ADDRESS:
						err = take(c, c.Caller.Address)
					}
					if err != nil {
						return err
					}
				}
				a := admissions[c.method]
				if a == nil {
					return next(c)
				}
				end, _ := c.Deadline() // every call has one by now
				entered, ok := a.enter(end)
				if !ok {
					return errOverloaded
				}
				defer a.leave(entered)
				return next(c)
			}
		},
		message: func(c *call, m proto.Message) error {
			if r := c.method.Rate; r != nil && r.Field != nil {
				if err := take(c, r.Field.Get(m.ProtoReflect())); err != nil {
					return err
				}
			}
			if most := c.method.MaxRequestBytes; most < policy.MaxMessageBytes && proto.Size(m) > most {
				return errTooLarge
			}
			return nil
		},
	}
}

// maxBuckets bounds the memory of one method's rate, in keys.
const maxBuckets = 100_000

type buckets struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex
	byKey map[string]*rate.Limiter
}

func newBuckets(r *policy.Rate) *buckets {
	return &buckets{rate: rate.Limit(r.PerSecond), burst: r.Burst, byKey: make(map[string]*rate.Limiter)}
}

// take takes one call out of the key's bucket, or says how long to wait until there is one.
func (b *buckets) take(key string, now time.Time) time.Duration {
	b.mu.Lock()
	l := b.byKey[key]
	if l == nil {
		if len(b.byKey) >= maxBuckets {
			b.sweep(now)
		}
		l = rate.NewLimiter(b.rate, b.burst)
		b.byKey[key] = l
	}
	b.mu.Unlock()
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// sweep forgets full buckets, which are as good as new ones, and if that frees nothing, all: a flood of keys then costs
// the patience of the others once, and memory never. The caller holds mu.
func (b *buckets) sweep(now time.Time) {
	for k, l := range b.byKey {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.byKey, k)
		}
	}
	if len(b.byKey) >= maxBuckets {
		clear(b.byKey)
	}
}
