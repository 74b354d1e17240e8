package selftest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// ours are breaks of the contract itself: of each package one field, value, method and service, so that a package which
// the gate does not look at is found out.
func ours() []mutation {
	everywhere := func(rule, name string, kind schema.Kind, fits func(*schema.Element) bool, change func(text string) string) mutation {
		return mutation{rule, name, func(s *source) (bool, error) { return s.element(kind, fits, change) }}
	}
	plain := func(e *schema.Element) bool {
		return !strings.HasPrefix(e.Package, "policy.") && e.Attr("oneof") == "" && e.Attr("label") == "" && e.Attr("type") == "string" && len(e.Parent.Children) > 1
	}
	var list []mutation
	list = append(list,
		everywhere("RPC_NO_DELETE", "a method of the contract is deleted", schema.Method, func(*schema.Element) bool { return true }, func(string) string { return "" }),
		everywhere("RPC_SAME_SERVER_STREAMING", "a method of the contract streams", schema.Method, func(e *schema.Element) bool { return e.Attr("server_streaming") == "" },
			func(text string) string {
				return regexp.MustCompile(`returns\s*\(`).ReplaceAllString(text, "returns (stream ")
			}),
		everywhere("RPC_SAME_IDEMPOTENCY_LEVEL", "a method of the contract promises less", schema.Method, func(e *schema.Element) bool { return e.Attr("idempotency_level") == "IDEMPOTENT" },
			func(text string) string {
				return strings.Replace(text, "option idempotency_level = IDEMPOTENT;", "", 1)
			}),
		everywhere("HTTP_ROUTE_REMOVED", "a route of the contract changes", schema.Method, func(e *schema.Element) bool { return len(e.Attr("(google.api.http).get")) > 0 },
			func(text string) string { return regexp.MustCompile(`get: "/`).ReplaceAllString(text, `get: "/moved/`) }),
		everywhere("POLICY_TIMEOUT_SHORTENED", "a method of the contract has less time", schema.Method, func(e *schema.Element) bool { return e.Attr("(policy.v1.method).timeout") == "5s" },
			func(text string) string {
				return strings.Replace(text, "timeout: {seconds: 5}", "timeout: {seconds: 2}", 1)
			}),
		everywhere("POLICY_SCOPE_ADDED", "a method of the contract asks for more", schema.Method, func(e *schema.Element) bool { return e.Attr("(policy.v1.method).scopes") != "" },
			func(text string) string { return strings.Replace(text, "scopes: [", `scopes: ["more", `, 1) }),
		everywhere("SERVICE_NO_DELETE", "a service of the contract is deleted", schema.Service, func(*schema.Element) bool { return true }, func(string) string { return "" }),
		everywhere("VALIDATE_REQUEST_TIGHTENED", "a field of a request of the contract is shorter", schema.Field, func(e *schema.Element) bool {
			return e.Attr("(buf.validate.field).string.max_len") != "" && strings.HasSuffix(e.Parent.Name, "Request")
		}, func(text string) string {
			return regexp.MustCompile(`max_len( =|:) \d+`).ReplaceAllString(text, "max_len$1 1")
		}),
		everywhere("REDACT_REMOVED", "a secret of the contract is logged", schema.Field, func(e *schema.Element) bool { return e.Attr("debug_redact") == "true" },
			func(text string) string {
				return strings.Replace(text, "debug_redact = true", "debug_redact = false", 1)
			}),
	)
	// In every package.
	inEach := func(rule, name string, kind schema.Kind, fits func(*schema.Element) bool, change func(string) string) {
		list = append(list, mutation{rule, name, func(s *source) (bool, error) {
			found := false
			for _, pkg := range s.packages() {
				done, err := s.element(kind, func(e *schema.Element) bool { return e.Package == pkg && fits(e) }, change)
				if err != nil {
					return false, err
				}
				found = found || done
			}
			return found, nil
		}})
	}
	inEach("FIELD_NO_DELETE", "a field of every package is deleted", schema.Field, plain, func(string) string { return "" })
	inEach("FIELD_SAME_NAME", "a field of every package is renamed", schema.Field, plain, func(text string) string {
		return regexp.MustCompile(`^(\S+ )(\w+)( = )`).ReplaceAllString(text, "${1}renamed_${2}$3")
	})
	inEach("FIELD_SAME_TYPE", "a field of every package has another type", schema.Field, func(e *schema.Element) bool {
		return plain(e) && !strings.Contains(fmt.Sprint(e.Shape), "buf.validate")
	}, func(text string) string { return strings.Replace(text, "string ", "bytes ", 1) })
	inEach("FIELD_SAME_CARDINALITY", "a field of every package repeats", schema.Field, func(e *schema.Element) bool {
		return plain(e) && !strings.Contains(fmt.Sprint(e.Shape), "buf.validate")
	}, func(text string) string { return "repeated " + text })
	inEach("ENUM_VALUE_NO_DELETE", "a value of every package is deleted", schema.EnumValue, func(e *schema.Element) bool { return e.Number == 1 && !strings.Contains(e.Name, "policy.v1") },
		func(string) string { return "" })
	inEach("ENUM_VALUE_SAME_NAME", "a value of every package is renamed", schema.EnumValue, func(e *schema.Element) bool { return e.Number == 1 && !strings.Contains(e.Name, "policy.v1") },
		func(text string) string { return regexp.MustCompile(`^(\w+)`).ReplaceAllString(text, "${1}_RENAMED") })
	return list
}

// packages returns the packages of the contract, without that of the fixture and those that buf.yaml ignores.
func (s *source) packages() []string {
	var names []string
	for _, file := range s.image.Files {
		if strings.HasPrefix(file.Name, fixtureFolder) || review.Ignored(s.dir, s.path(file.Name)) || slices.Contains(names, file.Package) {
			continue
		}
		names = append(names, file.Package)
	}
	return names
}

// path returns where a file of a module lies in the workspace.
func (s *source) path(file string) string { return review.ModulePath(s.dir, file) }

// element changes the source of the first element that fits.
func (s *source) element(kind schema.Kind, fits func(*schema.Element) bool, change func(string) string) (bool, error) {
	var found *schema.Element
	packages := s.packages()
	s.image.Walk(func(e *schema.Element) {
		if found == nil && e.Kind == kind && e.At.EndLine > 0 && slices.Contains(packages, e.Package) && fits(e) {
			found = e
		}
	})
	if found == nil {
		return false, nil
	}
	return s.edit(found.At.Path, func(text string) string {
		from, to := offset(text, found.At.Line, found.At.Column), offset(text, found.At.EndLine, found.At.EndColumn)
		return text[:from] + change(text[from:to]) + text[to:]
	})
}

// offset returns the place of a line and a column, both counted from 1. Columns are bytes, as compilers of protobuf count
// them, where a line has no tabs.
func offset(text string, line, column int) int {
	at := 0
	for range line - 1 {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return len(text)
		}
		at += next + 1
	}
	return min(at+column-1, len(text))
}
