package rules

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// A binding is one HTTP request by which a method is reached.
type binding struct {
	verb string // in capitals
	path string // a template, as google.api.http has it
	body string // the field that the body is; "*" for all fields that the path does not name; "" for none
}

// bindings returns how a method is reached over HTTP; nil where it is not.
func (c *Contract) bindings(m method) []binding {
	rule := c.option(m.options, httpOption)
	var all []binding
	for _, r := range append([]record{rule}, rule.messages("additional_bindings")...) {
		b := binding{body: r.text("body")}
		for _, verb := range []protoreflect.Name{"get", "put", "post", "delete", "patch"} {
			if r.has(verb) {
				b.verb, b.path = strings.ToUpper(string(verb)), r.text(verb)
			}
		}
		if r.has("custom") {
			b.verb, b.path = strings.ToUpper(r.message("custom").text("kind")), r.message("custom").text("path")
		}
		if b.verb != "" {
			all = append(all, b)
		}
	}
	return all
}

func httpUnary(c *Contract, report Report) {
	for _, m := range c.methods {
		if (m.IsStreamingClient() || m.IsStreamingServer()) && len(c.bindings(m)) > 0 {
			report(m, "streams and has a google.api.http, by which the edge serves unary calls alone: leave it out")
		}
	}
}

// httpGetSafe guards against what is repeated, prefetched or sent from another site without anybody's asking.
func httpGetSafe(c *Contract, report Report) {
	for _, m := range c.methods {
		isGet := func(b binding) bool { return b.verb == "GET" || b.verb == "HEAD" }
		if slices.ContainsFunc(c.bindings(m), isGet) && m.options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			report(m, "is reached by GET, which browsers and caches repeat at will, and may change something: bind it to post, or state idempotency_level = NO_SIDE_EFFECTS")
		}
	}
}

// variable finds the fields that a path template names.
var variable = regexp.MustCompile(`\{([^}=]+)`)

// httpSecretInBody guards against secrets in the logs and histories that keep URLs.
func httpSecretInBody(c *Contract, report Report) {
	for _, m := range c.methods {
		for _, b := range c.bindings(m) {
			if secret := c.secretInURL(m.Input(), b); secret != nil {
				report(m, "sends the secret %q in the URL of %s %s, where logs and histories keep it: send it in the body", string(secret.Parent().Name()+"."+secret.Name()), b.verb, b.path)
			}
		}
	}
}

// secretInURL returns a secret that the path or the query of a request carries; nil where there is none.
func (c *Contract) secretInURL(request protoreflect.MessageDescriptor, b binding) protoreflect.FieldDescriptor {
	for _, found := range variable.FindAllStringSubmatch(b.path, -1) {
		md := request
		for name := range strings.SplitSeq(strings.TrimSpace(found[1]), ".") {
			if md == nil {
				break
			}
			fd := md.Fields().ByName(protoreflect.Name(name))
			if fd == nil {
				break // buf and the edge refuse such a template
			}
			if c.isSecret(fd) {
				return fd
			}
			md = fd.Message()
		}
	}
	if b.body == "*" {
		return nil
	}
	for i := range request.Fields().Len() {
		fd := request.Fields().Get(i)
		if string(fd.Name()) == b.body {
			continue
		}
		if c.isSecret(fd) {
			return fd
		}
		if inside := content(fd); inside != nil {
			if secret := c.secretIn(inside); secret != nil {
				return secret
			}
		}
	}
	return nil
}
