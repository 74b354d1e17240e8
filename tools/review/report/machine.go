package report

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// mostAnnotations is how many of a kind GitHub shows of one step; it drops the others without a word
// (https://docs.github.com/en/actions/reference/limits).
const mostAnnotations = 10

// Annotations writes the workflow commands by which GitHub shows findings beside the lines they are about
// (https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands). The first says how the review
// ended; of each kind there are as many as GitHub shows, and the last of a kind says how many more there are.
func Annotations(w io.Writer, r *review.Report) error {
	byKind := map[string][]string{}
	add := func(kind, format string, args ...any) {
		byKind[kind] = append(byKind[kind], fmt.Sprintf("::%s "+format, append([]any{kind}, args...)...))
	}
	ended := "notice"
	if r.Failures() > 0 {
		ended = "error"
	}
	add(ended, "title=schema review::%s", data(verdict(r)))
	for _, f := range shown(r) {
		kind := "error"
		switch {
		case f.Approval != "" || f.Level == rules.Note:
			kind = "notice"
		case f.Level == rules.Care && !f.Fails():
			kind = "warning"
		}
		text := f.Text + ". " + axes(f.Axes)
		if c := concerned(f); c != "" {
			text += "\n" + c
		}
		if f.Fails() {
			text += "\n" + f.WayOut + "\n" + approve(f)
		}
		add(kind, "file=%s,line=%d,title=%s::%s", property(path.Join(r.Prefix, f.Path)), max(f.Line, 1), property(f.Rule), data(text))
	}
	for _, a := range r.Approvals {
		if a.State == review.Used {
			continue
		}
		kind := "error"
		if !a.Fails() {
			kind = "warning"
		}
		add(kind, "file=%s,line=1,title=approval::%s", property(path.Join(r.Prefix, a.File)), data(string(a.State)+": "+a.What))
	}
	for _, kind := range []string{"error", "warning", "notice"} {
		all := byKind[kind]
		if more := len(all) - mostAnnotations + 1; more > 1 {
			all = append(all[:mostAnnotations-1], fmt.Sprintf("::%s title=schema review::and %d more like these: the report has them all", kind, more))
		}
		for _, line := range all {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func data(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

func property(text string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(text))
}

// SARIF writes the report as OASIS SARIF 2.1.0, which code hosts and editors read.
func SARIF(w io.Writer, r *review.Report) error {
	type text struct {
		Text string `json:"text"`
	}
	type rule struct {
		ID               string `json:"id"`
		ShortDescription text   `json:"shortDescription"`
		FullDescription  text   `json:"fullDescription"`
		Help             text   `json:"help"`
	}
	type region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
	type location struct {
		PhysicalLocation struct {
			ArtifactLocation struct {
				URI       string `json:"uri"`
				URIBaseID string `json:"uriBaseId"`
			} `json:"artifactLocation"`
			Region region `json:"region"`
		} `json:"physicalLocation"`
		Message *text `json:"message,omitempty"`
	}
	type suppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification,omitempty"`
	}
	type result struct {
		RuleID              string            `json:"ruleId"`
		Level               string            `json:"level"`
		Message             text              `json:"message"`
		Locations           []location        `json:"locations"`
		RelatedLocations    []location        `json:"relatedLocations,omitempty"`
		PartialFingerprints map[string]string `json:"partialFingerprints"`
		Suppressions        []suppression     `json:"suppressions,omitempty"`
	}
	at := func(path string, line, column int) location {
		var l location
		l.PhysicalLocation.ArtifactLocation.URI, l.PhysicalLocation.ArtifactLocation.URIBaseID = reference(r.Prefix, path), "%SRCROOT%"
		l.PhysicalLocation.Region = region{max(line, 1), column}
		return l
	}
	known := map[string]bool{}
	listed, results := []rule{}, []result{}
	for _, f := range r.Findings {
		if f.Implied != "" {
			continue
		}
		if !known[f.Rule] {
			known[f.Rule] = true
			purpose := f.Rule
			if of, ok := rules.Find(f.Rule); ok {
				purpose = of.Purpose
			}
			listed = append(listed, rule{f.Rule, text{purpose}, text{f.Why}, text{f.WayOut}})
		}
		is := result{
			RuleID: f.Rule, Level: "error", Message: text{f.Text + " (" + axes(f.Axes) + ")"}, Locations: []location{at(f.Path, f.Line, f.Column)},
			PartialFingerprints: map[string]string{"concordatReview/v1": f.Fingerprint},
		}
		if f.Level == rules.Note {
			is.Level = "note"
		}
		for n, use := range f.Consumers.Uses {
			if n == 50 {
				break
			}
			l := at(use.Path, use.Line, use.Column)
			l.Message = &text{string(use.Kind)}
			is.RelatedLocations = append(is.RelatedLocations, l)
		}
		switch {
		case f.Approval != "":
			is.Suppressions = []suppression{{"external", "approved by " + f.Approval}}
		case f.Hidden != "":
			is.Suppressions = []suppression{{"external", f.Hidden}}
		}
		results = append(results, is)
	}
	for _, a := range r.Approvals {
		if a.Fails() {
			if !known["APPROVAL"] {
				known["APPROVAL"] = true
				listed = append(listed, rule{"APPROVAL", text{"an approval approves nothing"}, text{"What approves nothing that is there may approve something that nobody looked at."}, text{"Remove it: review prune."}})
			}
			results = append(results, result{RuleID: "APPROVAL", Level: "error", Message: text{string(a.State) + ": " + a.What}, Locations: []location{at(a.File, 1, 1)},
				PartialFingerprints: map[string]string{"concordatReview/v1": a.File}})
		}
	}
	document := map[string]any{
		"$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		"version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":               map[string]any{"driver": map[string]any{"name": "concordat-review", "informationUri": "https://github.com/concordat-dev/concordat", "rules": listed}},
			"originalUriBaseIds": map[string]any{"%SRCROOT%": map[string]any{"description": text{"the root of the repository"}}},
			"columnKind":         "unicodeCodePoints",
			"results":            results,
		}},
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(document)
}

// reference writes a path from a workspace, which lies in a folder of its repository, as the relative reference of a
// URI (RFC 3986); what is about no file is about buf.yaml.
func reference(prefix, file string) string {
	if file == "" {
		file = "buf.yaml"
	}
	return (&url.URL{Path: path.Join(prefix, file)}).String()
}

// Changelog writes what changed since the release, or since the base before the first one, as a section of a change log.
func Changelog(w io.Writer, r *review.Report) error {
	groups := []struct {
		title string
		of    func(review.Change, bool) bool
	}{
		{"Broken", func(_ review.Change, breaks bool) bool { return breaks }},
		{"Added", func(c review.Change, breaks bool) bool { return !breaks && c.What == "added" }},
		{"Removed", func(c review.Change, breaks bool) bool { return !breaks && c.What == "removed" }},
		{"Changed", func(c review.Change, breaks bool) bool { return !breaks && c.What == "changed" }},
	}
	since, changes := "", r.Changes
	if r.Released != nil {
		since, changes = "release", r.Released
	}
	breaks := map[string]bool{}
	for _, f := range r.Findings {
		for _, v := range []rules.Verdict{f.Axes.Wire, f.Axes.JSON, f.Axes.Source, f.Axes.Semantics} {
			if v == rules.Breaks && f.Level != rules.Note && f.Implied == "" && (since == "" || slices.Contains(f.Baselines, since)) {
				breaks[f.Element] = true
			}
		}
	}
	title := "## Contract"
	if r.Bump != "" {
		title += " (" + r.Bump + ")"
	}
	if _, err := fmt.Fprintln(w, title); err != nil {
		return err
	}
	written := false
	for _, group := range groups {
		first := true
		for _, c := range changes {
			if c.Comment || !group.of(c, breaks[c.Element]) {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n### %s\n\n", group.title)
				first, written = false, true
			}
			if _, err := fmt.Fprintf(w, "- %s\n", code(change(c))); err != nil {
				return err
			}
		}
	}
	if !written {
		_, err := fmt.Fprintln(w, "\nNothing changed.")
		return err
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
