package rules

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

const errorReason protoreflect.Name = "ErrorReason"

// packageErrorReason says nothing of a package that is checked in part, as by `buf lint --path`, where one can tell:
// its reasons may stand in what is left out.
func packageErrorReason(c *Contract, report Report) {
	reasons := map[protoreflect.FullName]bool{}
	for _, pkg := range c.imported {
		reasons[pkg] = true
	}
	c.enums(func(ed protoreflect.EnumDescriptor) {
		switch {
		case ed.Name() == errorReason && ed.Parent() == ed.ParentFile():
			reasons[ed.ParentFile().Package()] = true
			if base := path.Base(ed.ParentFile().Path()); base != "error_reason.proto" {
				report(ed, "stands in %s: move it to error_reason.proto", base)
			}
		case strings.HasSuffix(string(ed.Name()), string(errorReason)):
			report(ed, "is a second list of error reasons: put its values into the ErrorReason of the package")
		}
	})
	for _, s := range c.services() {
		pkg := s.ParentFile().Package()
		if !reasons[pkg] {
			reasons[pkg] = true // said once
			report(s, "ends with errors, and package %s has no reasons for them: add an enum ErrorReason in error_reason.proto", pkg)
		}
	}
}

func errorReasonCode(c *Contract, report Report) {
	c.enums(func(ed protoreflect.EnumDescriptor) {
		locations := ed.ParentFile().SourceLocations()
		if ed.Name() != errorReason || locations.Len() == 0 { // an image may come without comments
			return
		}
		for i := range ed.Values().Len() {
			v := ed.Values().Get(i)
			code, _, found := strings.Cut(comment(v), ":")
			if v.Number() != 0 && (!found || !slices.Contains(codes(), code)) {
				report(v, "does not say which status it comes with: begin its comment with the code and a colon, as in %q", "NOT_FOUND: there is no such user")
			}
		}
	})
}

// comment returns what stands above an element, "" where that is nothing or the image has no comments.
func comment(d protoreflect.Descriptor) string {
	return strings.TrimSpace(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
}

// errorsPart finds the part of an RPC's comment that lists its errors, and named finds codes and reasons in it: words
// in capitals.
var (
	errorsPart = regexp.MustCompile(`(?ms)^ ?Errors\b.*`)
	named      = regexp.MustCompile(`\b[A-Z][A-Z0-9_]{2,}\b`)
)

// rpcErrorsKnown says nothing where the image lacks the reasons of the package or those of the request path, as where
// one file is checked by itself.
func rpcErrorsKnown(c *Contract, report Report) {
	for _, m := range c.methods {
		own, ok := c.reasons(m.ParentFile().Package())
		ofPath, okPath := c.reasons(policyOption.Parent())
		if !ok || !okPath {
			continue
		}
		for _, word := range named.FindAllString(errorsPart.FindString(comment(m)), -1) {
			if !slices.Contains(codes(), word) && !slices.Contains(own, word) && !slices.Contains(ofPath, word) {
				report(m, "lists the error %s, which is neither a status code nor an ErrorReason of its package or of policy.v1", word)
			}
		}
	}
}

// reasons returns the error reasons of a package without their prefix; ok is false where the image has none.
func (c *Contract) reasons(pkg protoreflect.FullName) (names []string, ok bool) {
	et, err := c.types.FindEnumByName(pkg.Append(errorReason))
	if err != nil {
		return nil, false
	}
	values := et.Descriptor().Values()
	for i := range values.Len() {
		names = append(names, strings.TrimPrefix(string(values.Get(i).Name()), "ERROR_REASON_"))
	}
	return names, true
}

// codes are the statuses of errors (google.rpc.Code).
func codes() []string {
	return []string{
		"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
		"DATA_LOSS", "UNAUTHENTICATED",
	}
}
