package kit

import (
	"context"
	"math/rand/v2"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/token"
)

// FollowRevocations has the verifier hear, while the service runs, which access tokens have been revoked; see
// token.Follower. The service starts and serves whether the feed can be opened or not.
func (h *Host) FollowRevocations(v *token.Verifier, open token.Open) error {
	f := token.NewFollower(token.FollowerConfig{Open: open, Verifier: v, Clock: h.Clock, Random: rand.Float64, Log: h.Log})
	h.Beside(func(ctx context.Context) error { f.Run(ctx); return nil })
	return h.Signals.Collect(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "concordat_revocations_heard_seconds",
			Help: "When the feed of revoked access tokens last said something, in seconds since 1970; 0 for never. On a quiet feed that is every 15 s.",
		}, func() float64 {
			if at := f.Heard(); !at.IsZero() {
				return float64(at.UnixMilli()) / 1e3
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "concordat_revocations", Help: "Revocations of access tokens that are remembered.",
		}, func() float64 { return float64(v.Revoked()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "concordat_revocation_gaps_total",
			Help: "How often the feed could not be resumed where it broke off, so that every access token had to be refreshed.",
		}, func() float64 { return float64(f.Gaps()) }),
	)
}
