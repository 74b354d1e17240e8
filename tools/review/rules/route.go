package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

const httpOption = "(google.api.http)"

var overREST = Axes{Safe, Breaks, Safe, Safe}

var routeRules = []*Rule{
	{ID: "HTTP_ROUTE_REMOVED", Level: Break, Axes: overREST, Purpose: "a method has a REST route less",
		Why: "Requests to it are answered with 404.", WayOut: "Keep the old route in additional_bindings beside the new one.", check: routeRemoved},
	{ID: "HTTP_BODY_CHANGED", Level: Break, Axes: overREST, Purpose: "a REST route takes or returns another body",
		Why: "What callers send is read as something else, or refused.", WayOut: "Add a route with the new body in additional_bindings.", check: bodyChanged},
}

// A route is one binding of a method.
type route struct{ verb, path, body, responseBody string }

func (r route) String() string { return strings.ToUpper(r.verb) + " " + r.path }

// routes returns the bindings of a method (google/api/http.proto).
func routes(e *schema.Element) []route {
	by := map[string]*route{}
	for _, a := range e.Shape {
		rest, ok := strings.CutPrefix(a.Name, httpOption+".")
		if !ok {
			continue
		}
		binding, name := "", rest
		if strings.HasPrefix(rest, "additional_bindings[") {
			binding, name, _ = strings.Cut(rest, ".")
		}
		if by[binding] == nil {
			by[binding] = &route{}
		}
		r := by[binding]
		switch name {
		case "get", "put", "post", "delete", "patch":
			r.verb, r.path = name, a.Value
		case "custom.kind":
			r.verb = a.Value
		case "custom.path":
			r.path = a.Value
		case "body":
			r.body = a.Value
		case "response_body":
			r.responseBody = a.Value
		}
	}
	var result []route
	for _, binding := range sortedKeys(by) {
		result = append(result, *by[binding])
	}
	return result
}

func routeRemoved(_ *Comparison, change *schema.Change) []hit {
	if change.Added() || change.Removed() || change.After.Kind != schema.Method {
		return nil
	}
	var hits []hit
	now := routes(change.After)
	for _, old := range routes(change.Before) {
		if slices.ContainsFunc(now, func(r route) bool { return sameRoute(r, old) }) {
			continue
		}
		became := ""
		for _, r := range now {
			if became == "" {
				became = r.String()
			}
		}
		hits = append(hits, hit{attr: httpOption + "." + old.verb, old: old.String(), new: became, text: fmt.Sprintf("is no longer reached by %s", old),
			patch: fmt.Sprintf("  // in option %s of %s\n+ additional_bindings {%s: %q}", httpOption, change.After.Short(), old.verb, old.path)})
	}
	return hits
}

// sameRoute tells whether two bindings take the same requests: the verb and the path, whatever its variables are called
// is what the fields of the request say, so that their names count as well.
func sameRoute(a, b route) bool { return a.verb == b.verb && a.path == b.path }

func bodyChanged(_ *Comparison, change *schema.Change) []hit {
	if change.Added() || change.Removed() || change.After.Kind != schema.Method {
		return nil
	}
	var hits []hit
	now := routes(change.After)
	for _, old := range routes(change.Before) {
		n := slices.IndexFunc(now, func(r route) bool { return sameRoute(r, old) })
		if n < 0 {
			continue
		}
		if now[n].body != old.body {
			hits = append(hits, hit{attr: fmt.Sprintf("%s[%s].body", httpOption, old), old: old.body, new: now[n].body, text: fmt.Sprintf("takes %s as the body of %s, and took %s", quoted(now[n].body), old, quoted(old.body))})
		}
		if now[n].responseBody != old.responseBody {
			hits = append(hits, hit{attr: fmt.Sprintf("%s[%s].response_body", httpOption, old), old: old.responseBody, new: now[n].responseBody,
				text: fmt.Sprintf("returns %s as the body of %s, and returned %s", quoted(now[n].responseBody), old, quoted(old.responseBody))})
		}
	}
	return hits
}
