package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

//go:embed report.html
var page string

// HTML writes one page that needs nothing else: every finding with the shapes side by side, and every change.
func HTML(w io.Writer, r *review.Report) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"axes": axes, "concerned": concerned, "approve": approve, "title": title,
		"seen": seen, "count": count, "evidence": evidence,
		"places": func(f *review.Finding) []string {
			all, more := places(f, 200)
			if more > 0 {
				all = append(all, fmt.Sprintf("and %d more", more))
			}
			return all
		},
		"looked":   func(a *review.Analysed) string { looked, _ := analysed(a); return looked },
		"unlooked": func(a *review.Analysed) []string { _, not := analysed(a); return not },
		"before":   func(f *review.Finding) []line { return marked(side(f, true), side(f, false)) },
		"after":    func(f *review.Finding) []line { return marked(side(f, false), side(f, true)) },
		"join":     strings.Join,
		"change":   change,
		"verdict":  verdict,
	}).Parse(page)
	if err != nil {
		return err
	}
	type group struct {
		Package  string
		Findings []*review.Finding
	}
	var groups []group
	findings := shown(r)
	for _, pkg := range packages(findings) {
		g := group{Package: title(pkg)}
		for _, f := range findings {
			if f.Package == pkg {
				g.Findings = append(g.Findings, f)
			}
		}
		groups = append(groups, g)
	}
	return t.Execute(w, struct {
		*review.Report
		Groups []group
	}{r, groups})
}

// A line is one line of a side.
type line struct {
	Text string
	// Differs is set where the other side does not have it.
	Differs bool
}

// marked splits one side into lines and says which the other does not have.
func marked(text, other string) []line {
	there := map[string]bool{}
	for l := range strings.Lines(other) {
		there[strings.TrimRight(l, "\n")] = true
	}
	var lines []line
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, "\n")
		lines = append(lines, line{l, !there[l]})
	}
	return lines
}

// side writes one side of what changed: the element and all that was said of it.
func side(f *review.Finding, before bool) string {
	change := f.Change()
	if change == nil {
		if before {
			return f.Old
		}
		return f.New
	}
	e := change.After
	if before {
		e = change.Before
	}
	return shape(e, "")
}

// shape writes an element with everything that is said of it and of what is inside.
func shape(e *schema.Element, indent string) string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(indent + e.Summary() + "\n")
	for _, a := range e.Shape {
		switch a.Name {
		case "name", "type", "label", "json_format", "request", "response", "client_streaming", "server_streaming", "utf8_validation", "cpp_string_type", "java_utf8_validation", "presence":
			continue
		}
		b.WriteString(indent + "    " + a.Name + " = " + a.Value + "\n")
	}
	for _, child := range e.Children {
		b.WriteString(shape(child, indent+"  "))
	}
	return b.String()
}
