package server

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
)

var errRate = fault.New(fault.ResourceExhausted, "RATE_LIMITED", "too many calls").WithDomain(fault.Domain)

// limit holds callers to the rates of the method, each by buckets of their own: by who they are or where they come from
// once a call, by what they ask for on each message. Rates by a field count only messages that keep their rules: what is
// refused anyway must not use up what somebody else is entitled to, nor the memory that counting takes.
func limit(s *Server) step {
	byCall, byMessage := make(map[*policy.Method][]*buckets), make(map[*policy.Method][]*buckets)
	for _, m := range s.policies {
		for _, r := range m.Rates {
			if r.Field == nil {
				byCall[m] = append(byCall[m], newBuckets(r, maxBuckets))
			} else {
				byMessage[m] = append(byMessage[m], newBuckets(r, maxBuckets))
			}
		}
	}
	take := func(all []*buckets, c *call, m proto.Message) error {
		for _, b := range all {
			if wait := b.take(b.key(c, m), s.cfg.Clock.Now()); wait > 0 {
				return errRate.WithRetryAfter(wait)
			}
		}
		return nil
	}
	return step{
		name: "limit",
		around: func(next handler) handler {
			return func(c *call) error {
				if err := take(byCall[c.method], c, nil); err != nil {
					return err
				}
				return next(c)
			}
		},
		message: func(c *call, m proto.Message) error {
			all := byMessage[c.method]
			if len(all) == 0 {
				return nil
			}
			if err := s.validator.check(m); err != nil {
				return err
			}
			return take(all, c, m)
		},
	}
}

const (
	// maxBuckets bounds the memory of one rate, in keys of about 150 bytes.
	maxBuckets = 100_000
	// sample is how many buckets are looked at to find one that can be forgotten.
	sample = 16
)

// buckets are those of one rate. A key is kept as its hash, whatever its size; the seed is the process's own, so that
// nobody can choose keys that share a bucket.
type buckets struct {
	rate policy.Rate
	most int
	seed maphash.Seed

	mu    sync.Mutex
	byKey map[uint64]*rate.Limiter
}

func newBuckets(r policy.Rate, most int) *buckets {
	return &buckets{rate: r, most: most, seed: maphash.MakeSeed(), byKey: make(map[uint64]*rate.Limiter)}
}

// key returns what the call, or one message of it, is counted by.
func (b *buckets) key(c *call, m proto.Message) string {
	switch b.rate.Per {
	case policyv1.RateKey_RATE_KEY_ADDRESS:
		return network(c.Caller.Address)
	case policyv1.RateKey_RATE_KEY_FIELD:
		return folded(b.rate.Field.Get(m.ProtoReflect()))
	case policyv1.RateKey_RATE_KEY_FIELD_AND_ADDRESS:
		return network(c.Caller.Address) + " " + folded(b.rate.Field.Get(m.ProtoReflect()))
	default:
		return c.Caller.Key()
	}
}

func folded(value string) string { return strings.ToLower(strings.TrimSpace(value)) }

// network returns what of an address one caller has: all of an IPv4 one, the upper half of an IPv6 one.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// take takes one call out of the key's bucket, or says how long to wait until there is one.
func (b *buckets) take(key string, now time.Time) time.Duration {
	h := maphash.String(b.seed, key)
	b.mu.Lock()
	l := b.byKey[h]
	if l == nil {
		if len(b.byKey) >= b.most {
			b.forget(now)
		}
		l = rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
		b.byKey[h] = l
	}
	b.mu.Unlock()
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// forget drops the fullest of a few buckets: who is forgotten gets a full one when they come back, so that costs the least
// with those who have used least. A flood of new keys therefore pushes itself out, and not those it wants forgotten. The
// caller holds mu.
func (b *buckets) forget(now time.Time) {
	var (
		fullest uint64
		most    = -1.0
		seen    int
	)
	for k, l := range b.byKey { // the order of a map is random
		if t := l.TokensAt(now); t > most {
			fullest, most = k, t
		}
		if seen++; seen == sample {
			break
		}
	}
	delete(b.byKey, fullest)
}
