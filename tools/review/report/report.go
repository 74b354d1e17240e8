// Package report writes the result of a schema review for those who read it: a person at a terminal, a pull request, a
// program, a code host, a browser. Every format says the same; those that are bounded say what they left out.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// A Format writes a report.
type Format func(io.Writer, *review.Report) error

// Formats are all formats by the names that the command line knows.
func Formats() map[string]Format {
	return map[string]Format{
		"text": Text(false), "color": Text(true), "markdown": Markdown, "json": JSON, "sarif": SARIF, "github": Annotations, "html": HTML, "changelog": Changelog,
	}
}

// JSON writes the report as it is; docs/evolving-the-contract.md describes the format, which grows without breaking.
func JSON(w io.Writer, r *review.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// verdict says in one line how the review ended.
func verdict(r *review.Report) string {
	var open, approved, notes, hidden, bad int
	for _, f := range r.Findings {
		switch {
		case f.Fails():
			open++
		case f.Approval != "":
			approved++
		case f.Hidden != "":
			hidden++
		case f.Level == rules.Note:
			notes++
		}
	}
	for _, a := range r.Approvals {
		if a.Fails() {
			bad++
		}
	}
	var parts []string
	say := func(n int, one, many string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, many))
		}
	}
	say(open, "finding to mend or approve", "findings to mend or approve")
	say(bad, "approval that approves nothing", "approvals that approve nothing")
	say(approved, "approved", "approved")
	say(notes, "note", "notes")
	say(hidden, "hidden by buf.yaml", "hidden by buf.yaml")
	changes := 0
	for _, c := range r.Changes {
		if !c.Comment {
			changes++
		}
	}
	head := "No change of the contract"
	if changes > 0 {
		head = count(changes, "change") + " of the contract"
	}
	if len(parts) == 0 {
		return head + ", nothing to approve"
	}
	return head + ": " + strings.Join(parts, ", ")
}

// axes writes the verdicts of a finding, the safe ones left out.
func axes(a rules.Axes) string {
	var parts []string
	for _, axis := range []struct {
		name    string
		verdict rules.Verdict
	}{{"wire", a.Wire}, {"JSON", a.JSON}, {"source", a.Source}, {"semantics", a.Semantics}} {
		switch axis.verdict {
		case rules.Breaks:
			parts = append(parts, axis.name+" breaks")
		case rules.Risk:
			parts = append(parts, axis.name+" at risk")
		}
	}
	if len(parts) == 0 {
		return "safe on wire, in JSON, in source and in meaning"
	}
	return strings.Join(parts, ", ")
}

// concerned says in one line whom a finding concerns.
func concerned(f *review.Finding) string {
	c := f.Consumers
	switch c.Verdict {
	case "":
		return ""
	case review.Unknown:
		return "who uses it is not known: " + c.Why
	case review.UnusedHere:
		return "unused here"
	case review.Unaffected:
		return fmt.Sprintf("unaffected, with %s here", count(len(c.Uses), "use"))
	default:
		return string(c.Verdict) + modules(f)
	}
}

// modules says in how many places of which modules a finding is felt, the most first. A module is known by the last
// part of its path.
func modules(f *review.Finding) string {
	counts := map[string]int{}
	for _, u := range slices.Concat(f.Consumers.Uses, f.Consumers.Built) {
		counts[path.Base(u.Module)] = 0
	}
	for module := range counts {
		// A place that is in both trees is one place.
		now, built := 0, 0
		for _, u := range f.Consumers.Uses {
			if path.Base(u.Module) == module {
				now++
			}
		}
		for _, u := range f.Consumers.Built {
			if path.Base(u.Module) == module {
				built++
			}
		}
		counts[module] = max(now, built)
	}
	names := sortedKeys(counts)
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	for n, name := range names {
		names[n] = fmt.Sprintf("%s %d", name, counts[name])
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// place writes one use.
func place(u review.Use) string {
	text := fmt.Sprintf("%s:%d %s", u.Path, u.Line, u.Kind)
	if u.Test {
		text += " (test)"
	}
	if u.LeftOut {
		text += " (not built here)"
	}
	return text
}

// places are the uses of a finding that are worth showing, those that break first, at most limit; more counts the rest.
func places(f *review.Finding, limit int) (shown []string, more int) {
	uses := slices.Clone(f.Consumers.Uses)
	slices.SortStableFunc(uses, func(a, b review.Use) int {
		order := func(u review.Use) int {
			n := 0
			if !u.Breaks {
				n += 2
			}
			if u.Test {
				n++
			}
			return n
		}
		return order(a) - order(b)
	})
	here := map[string]bool{}
	for _, u := range uses {
		text := place(u)
		if len(u.Owners) > 0 {
			text += " — " + strings.Join(u.Owners, " ")
		}
		if u.Error != "" && u.Breaks {
			text += ": " + u.Error
		}
		shown = append(shown, text)
		here[fmt.Sprint(u.Path, u.Kind)] = true
	}
	for _, u := range f.Consumers.Built {
		if here[fmt.Sprint(u.Path, u.Kind)] {
			continue // the same place, perhaps some lines away
		}
		text := place(u) + ", in programs built from the baseline"
		if len(u.Owners) > 0 {
			text += " — " + strings.Join(u.Owners, " ")
		}
		shown = append(shown, text)
	}
	once := map[string]bool{} // a line may use an element more than once
	shown = slices.DeleteFunc(shown, func(text string) bool {
		again := once[text]
		once[text] = true
		return again
	})
	if len(shown) > limit {
		return shown[:limit], len(shown) - limit
	}
	return shown, 0
}

// seen says who was seen to use the element.
func seen(f *review.Finding) string {
	if len(f.Seen) == 0 {
		return ""
	}
	s := f.Seen[0]
	text := fmt.Sprintf("last %s at %s, counted %s", s, s.LastSeen.UTC().Format("2006-01-02 15:04 UTC"), count(int(s.Count), "time"))
	if len(f.Seen) > 1 {
		text += fmt.Sprintf(", and by %d more", len(f.Seen)-1)
	}
	return text
}

// analysed says how far the search for consumers went: what was looked at in one line, and a line for each thing that
// was not looked at in full, as it should be.
func analysed(a *review.Analysed) (looked string, not []string) {
	looked = fmt.Sprintf("%s of %s", count(a.Packages, "package"), count(len(a.Modules), "module"))
	for _, problem := range a.Problems {
		not = append(not, problem.Where+" "+problem.What)
	}
	for _, name := range sortedKeys(a.Built) {
		for _, problem := range a.Built[name] {
			not = append(not, fmt.Sprintf("in %s: %s %s", name, problem.Where, problem.What))
		}
	}
	for _, file := range a.LeftOut {
		not = append(not, file+" is not built here, for its build tags, its system or its module, and was read as far as its names go")
	}
	return looked, not
}

// evidence says in one line what the snapshots of usage are worth.
func evidence(e *review.Evidence) string {
	text := fmt.Sprintf("counted by %s since %s", strings.Join(e.Services, ", "), e.Since.UTC().Format("2006-01-02 15:04 UTC"))
	if e.Incomplete != "" {
		text += "; what was not seen may be used: " + e.Incomplete
	}
	return text
}

// count writes a number of things whose plural ends in s.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// clip cuts text to at most limit bytes, between characters, and says so.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// shapes says in one line what was and what is.
func shapes(f *review.Finding) string {
	name := ""
	if f.Attr != "" {
		name = f.Attr + ": "
	}
	switch {
	case f.Old == "" && f.New == "":
		return ""
	case f.New == "":
		return name + f.Old + " → gone"
	case f.Old == "":
		return name + "new → " + f.New
	default:
		return name + f.Old + " → " + f.New
	}
}

// packages groups findings by their package, in their order.
func packages(findings []*review.Finding) []string {
	var names []string
	for _, f := range findings {
		if !slices.Contains(names, f.Package) {
			names = append(names, f.Package)
		}
	}
	return names
}

// title names a package, or what lies outside of all.
func title(pkg string) string {
	if pkg == "" {
		return "configuration"
	}
	return pkg
}

// shown are the findings that a reader has to see: without those that another one implies, and hidden ones last.
func shown(r *review.Report) []*review.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f *review.Finding) bool { return f.Implied != "" || f.Hidden != "" })
}
