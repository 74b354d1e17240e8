package rules

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/descriptorpb"
)

// What a retry means by saying nothing, as policy.v1.Retry documents it.
const (
	initialBackoff = 50 * time.Millisecond
	maxBackoff     = time.Second
)

func policyRetry(c *Contract, report Report) {
	c.policies(func(m method) {
		if !m.policy.has("retry") {
			return
		}
		r := m.policy.message("retry")
		if m.options.GetIdempotencyLevel() == descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
			report(m, "is repeated by clients, and a repetition may do it twice: make it IDEMPOTENT by a key, or leave retry out")
		}
		if n := r.number("attempts"); n < minAttempts || n > maxAttempts {
			report(m, "is sent %d times by retry.attempts, not %d to %d", n, minAttempts, maxAttempts)
		}
		first, longest := initialBackoff, maxBackoff
		if r.has("initial_backoff") {
			first = r.duration("initial_backoff")
		}
		if r.has("max_backoff") {
			longest = r.duration("max_backoff")
		}
		if first <= 0 || longest < first {
			report(m, "pauses %s before the first repetition and %s at most: the first must be above zero and no longer than the longest", pause(first), pause(longest))
		}
		if x := r.float("multiplier"); r.has("multiplier") && (math.IsNaN(x) || x < 1 || x > maxMultiplier) {
			report(m, "makes its pauses %v times longer by retry.multiplier, not 1 to %d", x, maxMultiplier)
		}
		for _, code := range r.words("codes") {
			switch code {
			case "RETRY_CODE_UNAVAILABLE", "RETRY_CODE_RESOURCE_EXHAUSTED", "RETRY_CODE_ABORTED":
			default:
				report(m, "is repeated after %s, after which a client must not repeat", code)
			}
		}
		for _, code := range twice(r.words("codes")) {
			report(m, "names %s twice in retry.codes: once is enough", code)
		}
	})
}

func policyHedge(c *Contract, report Report) {
	c.policies(func(m method) {
		if !m.policy.has("hedge") {
			return
		}
		h := m.policy.message("hedge")
		if m.policy.has("retry") {
			report(m, "has both hedge and retry, of which a client can follow one: leave one out")
		}
		if m.options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			report(m, "is sent to several servers at once by hedge, which only NO_SIDE_EFFECTS allows: leave hedge out")
		}
		if m.IsStreamingClient() || m.IsStreamingServer() {
			report(m, "streams, and only a unary call can be hedged: leave hedge out")
		}
		if n := h.number("attempts"); n < minAttempts || n > maxAttempts {
			report(m, "is sent %d times by hedge.attempts, not %d to %d", n, minAttempts, maxAttempts)
		}
		if delay, timeout := h.duration("delay"), m.policy.duration("timeout"); delay <= 0 || delay >= timeout {
			report(m, "waits %s by hedge.delay, not above zero and below the timeout of %s", pause(delay), pause(timeout))
		}
	})
}

// pause prints a duration that record.duration returned.
func pause(d time.Duration) string {
	if d < 0 {
		return "no valid duration"
	}
	return d.String()
}
