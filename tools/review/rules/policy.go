package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// policyOption is the option by which a method says who may call it and how (proto/policy/v1/policy.proto). A contract
// that does not have it has no findings of these rules.
const policyOption = "(policy.v1.method)"

var (
	semantics = Axes{Safe, Safe, Safe, Breaks}
	careful   = Axes{Safe, Safe, Safe, Risk}
)

var policyRules = []*Rule{
	{ID: "POLICY_REMOVED", Level: Security, Axes: semantics, Purpose: "a method lost its policy",
		Why: "A method without a policy is denied to everybody, and a server that has one does not start.", WayOut: restoreWayOut,
		check: method(func(was, is policy) []hit {
			if was.there && !is.there {
				return []hit{{attr: policyOption, old: "set", text: "has no policy any more"}}
			}
			return nil
		})},
	{ID: "POLICY_AUDIENCE_WIDENED", Level: Security, Axes: careful, Purpose: "more kinds of callers may call a method",
		Why: "Somebody may call what was closed to them.", WayOut: "Add a method for the new audience which returns only what they may see, or have the widening approved.",
		check: policyList("audience", added, "may now also be called by %s")},
	{ID: "POLICY_AUDIENCE_NARROWED", Level: Break, Axes: semantics, Purpose: "fewer kinds of callers may call a method",
		Why: "Callers that worked get PERMISSION_DENIED or UNAUTHENTICATED.", WayOut: "Add a method with the new policy, move the callers, then narrow the old one.",
		check: policyList("audience", removed, "may no longer be called by %s")},
	{ID: "POLICY_SCOPE_ADDED", Level: Break, Axes: semantics, Purpose: "a method asks for one more scope",
		Why: "Tokens that were good enough are refused until they are issued anew with the scope.", WayOut: "Give the scope to everybody who calls the method first; ask for it one token lifetime later.",
		check: policyList("scopes", added, "now asks for the scope %s")},
	{ID: "POLICY_SCOPE_REMOVED", Level: Security, Axes: careful, Purpose: "a method asks for one scope less",
		Why: "Tokens may do what they could not.", WayOut: restoreWayOut,
		check: policyList("scopes", removed, "no longer asks for the scope %s")},
	{ID: "POLICY_CALLER_REMOVED", Level: Break, Axes: semantics, Purpose: "a service may no longer call a method",
		Why: "That service gets PERMISSION_DENIED.", WayOut: "Remove the caller when it has stopped calling: the usage snapshot says when it last did.", check: callersNarrowed},
	{ID: "POLICY_CALLER_ADDED", Level: Security, Axes: careful, Purpose: "one more service may call a method",
		Why: "It may do what it could not.", WayOut: "Have it approved by the owner of the method.", check: callersWidened},
	{ID: "POLICY_SELF_ADDED", Level: Break, Axes: semantics, Purpose: "users may call a method only for themselves now",
		Why: "Users who asked about others get PERMISSION_DENIED.", WayOut: "Add a method with the new policy, or give or_scope to those who need it.",
		check: policyValue("self.field", func(old, now string) bool { return now != "" }, "binds users to {new}, and did to {old}")},
	{ID: "POLICY_SELF_REMOVED", Level: Security, Axes: careful, Purpose: "users may call a method for others now",
		Why: "Users see or do what belongs to others.", WayOut: restoreWayOut,
		check: policyValue("self.field", func(old, now string) bool { return now == "" }, "no longer binds users to what is theirs ({old})")},
	{ID: "POLICY_SELF_SCOPE_CHANGED", Level: Security, Axes: careful, Purpose: "another scope lifts the binding of users to what is theirs",
		Why: "Who has it may see or do what belongs to others.", WayOut: restoreWayOut,
		check: policyValue("self.or_scope", func(old, now string) bool { return true }, "lets the scope {new} act for others, and {old} before")},
	{ID: "POLICY_TIMEOUT_SHORTENED", Level: Break, Axes: semantics, Purpose: "a method has less time",
		Why: "Calls that took as long as they might end with DEADLINE_EXCEEDED; streams end sooner.", WayOut: "Look at how long calls take (the histogram of the server), and shorten in steps.",
		check: policyValue("timeout", shorter, "has {new} and had {old}")},
	{ID: "POLICY_RETRY_LOST", Level: Break, Axes: careful, Purpose: "clients repeat a method less often, or no longer",
		Why: "Failures of a moment reach callers who never saw them.", WayOut: "Leave the retry, or tell the callers to repeat it themselves.", check: retryLost},
	{ID: "POLICY_IDEMPOTENCY_KEY_CHANGED", Level: Break, Axes: semantics, Purpose: "another field makes a repeated call the same call, or none does",
		Why: "A client that repeats a call with the old key does it twice.", WayOut: "Leave the key, and add a method with the other one.",
		check: policyValue("idempotency_key", func(old, _ string) bool { return old != "" }, "knows repetitions by {new}, and did by {old}")},
	{ID: "POLICY_IDEMPOTENCY_KEY_REQUIRED", Level: Break, Axes: semantics, Purpose: "a method asks for an idempotency key",
		Why: "Requests without one are refused.", WayOut: "Send the key from every caller first.",
		check: policyValue("idempotency_key", func(old, _ string) bool { return old == "" }, "now asks for the key {new}")},
	{ID: "POLICY_RATE_LOWERED", Level: Break, Axes: semantics, Purpose: "a method may be called less often",
		Why: "Callers that kept the old rate get RESOURCE_EXHAUSTED.", WayOut: "Look at how often it is called (by caller), and lower in steps.", check: rateLowered},
	{ID: "POLICY_REQUEST_SIZE_LOWERED", Level: Break, Axes: Axes{Breaks, Breaks, Safe, Safe}, Purpose: "a method takes smaller requests",
		Why: "Requests that fitted are refused with RESOURCE_EXHAUSTED.", WayOut: "Add a method for smaller requests, or split them first.",
		check: policyValue("max_request_bytes", lowered, "takes {new} bytes and took {old}")},
	{ID: "POLICY_HEDGE_ADDED", Level: Break, Axes: careful, Purpose: "clients may send a call twice at once",
		Why: "The load may double, and the method must not mind being called twice.", WayOut: "Have it approved with a measurement of the load.",
		check: policyValue("hedge.attempts", func(old, now string) bool { return old == "" }, "may now be sent up to {new} times at once")},
}

// A policy is the policy of a method in one image: its attributes without the prefix.
type policy struct {
	there bool
	attrs map[string]string
}

func policyOf(e *schema.Element) policy {
	p := policy{attrs: map[string]string{}}
	for _, a := range e.Shape {
		if name, ok := strings.CutPrefix(a.Name, policyOption); ok {
			p.there = true
			p.attrs[strings.TrimPrefix(name, ".")] = a.Value
		}
	}
	return p
}

// method makes a check over methods that are there before and after.
func method(check func(was, is policy) []hit) func(*Comparison, *schema.Change) []hit {
	return func(_ *Comparison, change *schema.Change) []hit {
		if change.Added() || change.Removed() || change.After.Kind != schema.Method {
			return nil
		}
		return check(policyOf(change.Before), policyOf(change.After))
	}
}

func added(old, now []string) []string   { return without(now, old) }
func removed(old, now []string) []string { return without(old, now) }

// policyList finds items that came to or left a list of the policy.
func policyList(name string, which func(old, now []string) []string, text string) func(*Comparison, *schema.Change) []hit {
	return method(func(was, is policy) []hit {
		if !was.there || !is.there {
			return nil
		}
		found := which(items(was.attrs[name]), items(is.attrs[name]))
		if len(found) == 0 {
			return nil
		}
		return []hit{{attr: policyOption + "." + name, old: was.attrs[name], new: is.attrs[name], text: fmt.Sprintf(text, strings.Join(found, ", "))}}
	})
}

// policyValue finds a value of the policy that changed in the way that bad says. In the text {old} and {new} stand for
// the values.
func policyValue(name string, bad func(old, now string) bool, text string) func(*Comparison, *schema.Change) []hit {
	return method(func(was, is policy) []hit {
		old, now := was.attrs[name], is.attrs[name]
		if !was.there || !is.there || old == now || !bad(old, now) {
			return nil
		}
		return []hit{{attr: policyOption + "." + name, old: old, new: now, text: strings.NewReplacer("{old}", quoted(old), "{new}", quoted(now)).Replace(text)}}
	})
}

// An empty list of callers lets every service call.
var callersNarrowed = method(func(was, is policy) []hit {
	old, now := items(was.attrs["callers"]), items(is.attrs["callers"])
	if !was.there || !is.there || len(now) == 0 {
		return nil
	}
	lost := without(old, now)
	switch {
	case len(old) == 0:
		return []hit{{attr: policyOption + ".callers", new: is.attrs["callers"], text: "may be called by " + is.attrs["callers"] + " alone, and by every service before"}}
	case len(lost) > 0:
		return []hit{{attr: policyOption + ".callers", old: was.attrs["callers"], new: is.attrs["callers"], text: "may no longer be called by " + strings.Join(lost, ", ")}}
	default:
		return nil
	}
})

var callersWidened = method(func(was, is policy) []hit {
	old, now := items(was.attrs["callers"]), items(is.attrs["callers"])
	if !was.there || !is.there || len(old) == 0 {
		return nil
	}
	more := without(now, old)
	switch {
	case len(now) == 0:
		return []hit{{attr: policyOption + ".callers", old: was.attrs["callers"], text: "may now be called by every service"}}
	case len(more) > 0:
		return []hit{{attr: policyOption + ".callers", old: was.attrs["callers"], new: is.attrs["callers"], text: "may now also be called by " + strings.Join(more, ", ")}}
	default:
		return nil
	}
})

func shorter(old, now string) bool {
	was, wasErr := time.ParseDuration(old)
	is, isErr := time.ParseDuration(now)
	return wasErr != nil && old != "" || isErr != nil || is < was || old == ""
}

// lowered tells whether a limit went down; not said is without limit.
func lowered(old, now string) bool {
	if now == "" {
		return false
	}
	was, err := strconv.ParseFloat(old, 64)
	is, nowErr := strconv.ParseFloat(now, 64)
	return old == "" || err != nil || nowErr != nil || is < was
}

var retryLost = method(func(was, is policy) []hit {
	if !was.there || !is.there {
		return nil
	}
	var hits []hit
	old, now := was.attrs["retry.attempts"], is.attrs["retry.attempts"]
	if old != now && old != "" && (now == "" || lowered(old, now)) {
		hits = append(hits, hit{attr: policyOption + ".retry.attempts", old: old, new: now, text: fmt.Sprintf("is sent up to %s times, and was up to %s", quoted(now), quoted(old))})
	}
	if old != "" && now == "" {
		return hits // there is no retry any more, and so none after any code
	}
	if lost := without(items(was.attrs["retry.codes"]), items(is.attrs["retry.codes"])); len(lost) > 0 {
		hits = append(hits, hit{attr: policyOption + ".retry.codes", old: was.attrs["retry.codes"], new: is.attrs["retry.codes"], text: "is no longer repeated after " + strings.Join(lost, ", ")})
	}
	return hits
})

// A bucket is one rate of a policy.
type bucket struct{ perSecond, burst string }

// rates returns the rates of a policy by what they count.
func rates(p policy) map[string]bucket {
	result := map[string]bucket{}
	for n := 0; ; n++ {
		at := fmt.Sprintf("rate[%d].", n)
		per, ok := p.attrs[at+"per"]
		if !ok {
			return result
		}
		if field := p.attrs[at+"field"]; field != "" {
			per += " " + field
		}
		result[per] = bucket{p.attrs[at+"per_second"], p.attrs[at+"burst"]}
	}
}

var rateLowered = method(func(was, is policy) []hit {
	if !was.there || !is.there {
		return nil
	}
	old, now := rates(was), rates(is)
	var hits []hit
	for _, per := range sortedKeys(now) {
		before, had := old[per]
		after := now[per]
		text := fmt.Sprintf("%s a second, %s at once", after.perSecond, after.burst)
		switch {
		case !had:
			hits = append(hits, hit{attr: policyOption + ".rate[" + per + "]", new: text, text: fmt.Sprintf("may be called at most %s, by %s", text, per)})
		case lowered(before.perSecond, after.perSecond) || lowered(before.burst, after.burst):
			if before != after {
				hits = append(hits, hit{attr: policyOption + ".rate[" + per + "]", old: fmt.Sprintf("%s a second, %s at once", before.perSecond, before.burst), new: text,
					text: fmt.Sprintf("may be called at most %s, by %s; it was %s a second, %s at once", text, per, before.perSecond, before.burst)})
			}
		}
	}
	return hits
})

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
