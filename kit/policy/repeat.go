package policy

import (
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
)

// Retry says how a client repeats a call that failed for the moment.
type Retry struct {
	// Attempts is how often the call is sent in all, the first included: 2 to 5.
	Attempts int
	// InitialBackoff is the first pause, MaxBackoff the longest one.
	InitialBackoff, MaxBackoff time.Duration
	// Multiplier is by what each pause is longer than the one before: 1 to 10.
	Multiplier float64
	// Codes are the kinds of failure that are repeated: at least one of Unavailable, ResourceExhausted and Aborted.
	Codes []fault.Kind
}

// Hedge says when a client sends a call again before it is answered.
type Hedge struct {
	// Attempts is how often the call is sent at most, the first included: 2 to 5.
	Attempts int
	// Delay is how long the client waits for an answer before it sends the call once more; above zero.
	Delay time.Duration
}

// Bounds of what a policy may ask of clients.
const (
	minAttempts   = 2
	maxAttempts   = 5 // gRFC A6
	maxMultiplier = 10
)

// Repeats reports whether a client may send a call again that ended in a fault of that kind.
func (m *Method) Repeats(k fault.Kind) bool {
	if m.Hedge != nil {
		return k == fault.Unavailable
	}
	return m.Retry != nil && slices.Contains(m.Retry.Codes, k)
}

// OnlyWhenTold reports whether calls that ended in a fault of that kind are repeated only when the server says when: all
// but Unavailable, where waiting a moment is mostly enough.
func OnlyWhenTold(k fault.Kind) bool { return k != fault.Unavailable }

// LacksKey reports whether req must not be sent, because a client may repeat the call and nothing in req makes the
// repetition the same call.
func (m *Method) LacksKey(req proto.Message) bool {
	return m.Retry != nil && m.Key != nil && m.Key.Get(req.ProtoReflect()) == ""
}

// repetition reads retry and hedge.
func (m *Method) repetition(p *policyv1.MethodPolicy, level descriptorpb.MethodOptions_IdempotencyLevel, bad func(string, ...any)) {
	if r := p.GetRetry(); r != nil {
		m.Retry = compileRetry(r, bad)
		if level == descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
			bad("retry needs an idempotency_level of NO_SIDE_EFFECTS or IDEMPOTENT")
		}
	}
	h := p.GetHedge()
	if h == nil {
		return
	}
	m.Hedge = &Hedge{Attempts: int(h.GetAttempts()), Delay: h.GetDelay().AsDuration()}
	if m.Retry != nil {
		bad("hedge and retry exclude each other")
	}
	if level != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		bad("hedge needs an idempotency_level of NO_SIDE_EFFECTS")
	}
	if m.ClientStream || m.ServerStream {
		bad("hedge is for unary methods")
	}
	if h.GetAttempts() < minAttempts || h.GetAttempts() > maxAttempts {
		bad("hedge.attempts is %d, not %d to %d", h.GetAttempts(), minAttempts, maxAttempts)
	}
	if m.Hedge.Delay <= 0 || m.Hedge.Delay >= m.Timeout {
		bad("hedge.delay is %s, not above zero and below the timeout of %s", m.Hedge.Delay, m.Timeout)
	}
}

func compileRetry(r *policyv1.Retry, bad func(string, ...any)) *Retry {
	retry := &Retry{Attempts: int(r.GetAttempts()), InitialBackoff: 50 * time.Millisecond, MaxBackoff: time.Second, Multiplier: 2}
	if r.GetInitialBackoff() != nil {
		retry.InitialBackoff = r.GetInitialBackoff().AsDuration()
	}
	if r.GetMaxBackoff() != nil {
		retry.MaxBackoff = r.GetMaxBackoff().AsDuration()
	}
	if r.GetMultiplier() != 0 {
		retry.Multiplier = r.GetMultiplier()
	}
	if r.GetAttempts() < minAttempts || r.GetAttempts() > maxAttempts {
		bad("retry.attempts is %d, not %d to %d", r.GetAttempts(), minAttempts, maxAttempts)
	}
	if retry.InitialBackoff <= 0 || retry.MaxBackoff < retry.InitialBackoff {
		bad("retry backs off from %s to %s", retry.InitialBackoff, retry.MaxBackoff)
	}
	if m := retry.Multiplier; math.IsNaN(m) || m < 1 || m > maxMultiplier {
		bad("retry.multiplier is %v, not 1 to %d", m, maxMultiplier)
	}
	for _, c := range r.GetCodes() {
		kind, ok := map[policyv1.RetryCode]fault.Kind{
			policyv1.RetryCode_RETRY_CODE_RESOURCE_EXHAUSTED: fault.ResourceExhausted,
			policyv1.RetryCode_RETRY_CODE_ABORTED:            fault.Aborted,
			policyv1.RetryCode_RETRY_CODE_UNAVAILABLE:        fault.Unavailable,
		}[c]
		switch {
		case !ok:
			bad("retry.codes has %v, which is not known", c)
		case slices.Contains(retry.Codes, kind):
			bad("retry.codes has %v twice", c)
		default:
			retry.Codes = append(retry.Codes, kind)
		}
	}
	if len(r.GetCodes()) == 0 {
		retry.Codes = []fault.Kind{fault.Unavailable}
	}
	return retry
}

// messages reads what the policy says of the messages that clients send.
func (m *Method) messages(p *policyv1.MethodPolicy, bad func(string, ...any)) {
	switch p.GetCompression() {
	case policyv1.Compression_COMPRESSION_UNSPECIFIED:
	case policyv1.Compression_COMPRESSION_GZIP:
		m.Gzip = true
	default:
		bad("compression %v is not known", p.GetCompression())
	}
	m.MaxRequestBytes = MaxMessageBytes
	if n := p.GetMaxRequestBytes(); n > MaxMessageBytes {
		bad("max_request_bytes is %d, more than the %d that a server takes", n, MaxMessageBytes)
	} else if n > 0 {
		m.MaxRequestBytes = int(n)
	}
}
