package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Bounds of what a policy may ask for. Servers and clients refuse to start beyond them (kit/policy).
const (
	minAttempts     = 2
	maxAttempts     = 5 // gRFC A6
	maxMultiplier   = 10
	maxMessageBytes = 4 << 20
)

func policyPresent(c *Contract, report Report) {
	for _, m := range c.methods {
		switch {
		case m.foreign:
			report(m, "has a policy that nothing in the image explains: build the image with its imports")
		case !m.hasPolicy():
			report(m, "has no policy, so nobody could call it and its server would not start: state (policy.v1.method)")
		}
	}
}

func levelPresent(c *Contract, report Report) {
	for _, m := range c.methods {
		if m.options.IdempotencyLevel == nil {
			report(m, "does not say what a repetition does: state idempotency_level, IDEMPOTENCY_UNKNOWN if it must not be repeated")
		}
	}
}

// repetitionGuarded wants a repetition, or a change of what has changed meanwhile, to be told from the first call.
func repetitionGuarded(c *Contract, report Report) {
	c.policies(func(m method) {
		if m.options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENT || m.policy.text("idempotency_key") != "" {
			return
		}
		etag := m.Input().Fields().ByName("etag")
		if etag == nil || etag.Kind() != protoreflect.StringKind || etag.IsList() {
			report(m, "changes something and may be repeated, and nothing tells the repetition: name a field of the request in idempotency_key, or give the request a string etag")
		}
	})
}

// isUser reports whether users are among the audience.
func (m method) isUser() bool { return slices.Contains(m.policy.words("audience"), "AUDIENCE_USER") }

func policyAudience(c *Contract, report Report) {
	c.policies(func(m method) {
		audience := m.policy.words("audience")
		if len(audience) == 0 {
			report(m, "has no audience, so nobody may call it: name at least one")
		}
		for _, a := range audience {
			switch a {
			case "AUDIENCE_PUBLIC", "AUDIENCE_USER", "AUDIENCE_SERVICE":
			default:
				report(m, "has the audience %s, which is none: name AUDIENCE_PUBLIC, AUDIENCE_USER or AUDIENCE_SERVICE", a)
			}
		}
		for _, a := range twice(audience) {
			report(m, "names the audience %s twice: once is enough", a)
		}
	})
}

// scope is what a token can carry (RFC 6749 section 3.3): its list of scopes is one text, with spaces between them.
var scope = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

func policyScopes(c *Contract, report Report) {
	c.policies(func(m method) {
		scopes := m.policy.texts("scopes")
		if len(scopes) > 0 && !m.isUser() {
			report(m, "has scopes, which bind users, and users are not in the audience: add AUDIENCE_USER, or leave the scopes out")
		}
		self := m.policy.message("self")
		if self.has("or_scope") {
			scopes = append(slices.Clone(scopes), self.text("or_scope"))
		}
		for _, s := range scopes {
			if !scope.MatchString(s) {
				report(m, "wants the scope %q, which no token can carry: visible ASCII without quotes and backslashes", s)
			}
		}
		for _, s := range twice(m.policy.texts("scopes")) {
			report(m, "wants the scope %q twice: once is enough", s)
		}
	})
}

// peer is the name in a SPIFFE id: one segment of its path.
var peer = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

func policyCallers(c *Contract, report Report) {
	c.policies(func(m method) {
		callers := m.policy.texts("callers")
		for _, name := range callers {
			if !peer.MatchString(name) {
				report(m, "names the caller %q, which no peer is called: letters, digits, dots, hyphens and underscores", name)
			}
		}
		for _, name := range twice(callers) {
			report(m, "names the caller %q twice: once is enough", name)
		}
	})
}

func policySelf(c *Contract, report Report) {
	c.policies(func(m method) {
		if !m.policy.has("self") {
			return
		}
		if !m.isUser() {
			report(m, "has self, which binds users, and users are not in the audience: add AUDIENCE_USER, or leave self out")
		}
		if problem := fieldProblem(m.Input(), m.policy.message("self").text("field")); problem != "" {
			report(m, "cannot be bound to its caller: self.field: %s", problem)
		}
	})
}

func policyTimeout(c *Contract, report Report) {
	c.policies(func(m method) {
		if !m.policy.has("timeout") {
			report(m, "has no timeout, so a call could last for ever: state the longest that a caller may wait")
		} else if m.policy.duration("timeout") <= 0 {
			report(m, "has a timeout that is not above zero, or no duration at all")
		}
	})
}

func policyRate(c *Contract, report Report) {
	c.policies(func(m method) {
		for _, r := range m.policy.messages("rate") {
			if p := r.float("per_second"); !(p > 0) || math.IsInf(p, 0) {
				report(m, "has a rate of %v calls a second: state rate.per_second, above zero", p)
			}
			if r.number("burst") == 0 {
				report(m, "has a rate that lets no call in: state rate.burst, at least 1")
			}
			switch per := r.word("per"); per {
			case "RATE_KEY_CALLER", "RATE_KEY_ADDRESS":
				if field := r.text("field"); field != "" {
					report(m, "has a rate with the field %q that is not counted by a field: leave it out, or count by RATE_KEY_FIELD", field)
				}
			case "RATE_KEY_FIELD", "RATE_KEY_FIELD_AND_ADDRESS":
				if problem := fieldProblem(m.Input(), r.text("field")); problem != "" {
					report(m, "has a rate that cannot be counted: rate.field: %s", problem)
				}
			case "":
				report(m, "has a rate that does not say what it is counted by: state rate.per")
			default:
				report(m, "has a rate by %s, which is nothing that a server counts by", per)
			}
		}
	})
}

func policyIdempotencyKey(c *Contract, report Report) {
	c.policies(func(m method) {
		if !m.policy.has("idempotency_key") {
			return
		}
		if problem := fieldProblem(m.Input(), m.policy.text("idempotency_key")); problem != "" {
			report(m, "has no usable idempotency_key: %s", problem)
		}
		if m.options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENT {
			report(m, "has an idempotency_key, by which a repetition does nothing, and does not say so: state idempotency_level = IDEMPOTENT")
		}
	})
}

func policyCompression(c *Contract, report Report) {
	c.policies(func(m method) {
		switch compression := m.policy.word("compression"); compression {
		case "", "COMPRESSION_UNSPECIFIED":
			return
		case "COMPRESSION_GZIP":
		default:
			report(m, "compresses by %s, which clients do not know: COMPRESSION_GZIP, or nothing", compression)
		}
		if secret := c.secretIn(m.Input()); secret != nil {
			report(m, "compresses a request that holds the secret %q, whose size would tell of it: leave compression out", string(secret.Parent().Name()+"."+secret.Name()))
		}
	})
}

func policyMaxRequestBytes(c *Contract, report Report) {
	c.policies(func(m method) {
		if n := m.policy.number("max_request_bytes"); n > maxMessageBytes {
			report(m, "takes requests of %d bytes, and servers take no more than %d", n, maxMessageBytes)
		}
	})
}

// fieldProblem says what is wrong with the path of a string field, such as "charge.customer_id"; "" if nothing is.
func fieldProblem(md protoreflect.MessageDescriptor, path string) string {
	if path == "" {
		return "it is empty"
	}
	names := strings.Split(path, ".")
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		last := i == len(names)-1
		switch {
		case fd == nil:
			return fmt.Sprintf("%s has no field %q", md.Name(), name)
		case fd.Cardinality() == protoreflect.Repeated:
			return fmt.Sprintf("%q is repeated", name)
		case last && fd.Kind() != protoreflect.StringKind:
			return fmt.Sprintf("%q is no string", path)
		case !last && fd.Message() == nil:
			return fmt.Sprintf("%q is no message", name)
		}
		md = fd.Message()
	}
	return ""
}

// twice returns what a list has more than once, in the order in which it is repeated.
func twice(list []string) []string {
	var again []string
	for i, s := range list {
		if slices.Contains(list[:i], s) && !slices.Contains(again, s) {
			again = append(again, s)
		}
	}
	return again
}
