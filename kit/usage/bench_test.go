package usage_test

import (
	"math/rand/v2"
	"testing"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/usage"
)

// BenchmarkTally measures what a call of one request and one response pays, each of generated code with fields at 14
// paths, in five messages.
func BenchmarkTally(b *testing.B) {
	message := &policyv1.MethodPolicy{
		Audience: []policyv1.Audience{policyv1.Audience_AUDIENCE_USER}, Scopes: []string{"a", "b"}, Callers: []string{"gateway"},
		Self: &policyv1.Self{Field: "a", OrScope: "b"}, Retry: &policyv1.Retry{Attempts: 3, Multiplier: 2},
		Rate:           []*policyv1.Rate{{PerSecond: 1, Burst: 2}, {PerSecond: 3, Burst: 4}},
		IdempotencyKey: "a", MaxRequestBytes: 1,
	}
	for _, bm := range []struct {
		name  string
		oneIn uint32
	}{{"off", 0}, {"one in a thousand", 1000}, {"one in a hundred", 100}, {"each", 1}} {
		b.Run(bm.name, func(b *testing.B) {
			r := usage.New(usage.Config{Service: "shop", OneIn: bm.oneIn, Clock: clock.System(), Random: rand.Uint64})
			method := r.Method(place)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var tally *usage.Tally
					if method != nil { // as the path does
						tally = method.From("gateway")
					}
					tally.Request(message)
					tally.Response(message)
				}
			})
		})
	}
}
