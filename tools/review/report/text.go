package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// The colours of a terminal (ECMA-48).
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

// Text returns the format for a terminal: short, grouped by package, with what to do about each finding.
func Text(coloured bool) Format {
	return func(w io.Writer, r *review.Report) error {
		p := &printer{w: w, coloured: coloured}
		p.report(r)
		return p.err
	}
}

// painted is text that may hold colours of ours.
type painted string

// visible keeps what a contract says from ending a line of a terminal, moving its cursor or changing its colours.
func visible(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n':
			return ' '
		case unicode.IsControl(c) && c != '\t':
			return unicode.ReplacementChar
		default:
			return c
		}
	}, strings.ReplaceAll(text, "\r\n", "\n"))
}

type printer struct {
	w        io.Writer
	coloured bool
	err      error
}

func (p *printer) line(format string, args ...any) {
	for n, arg := range args {
		if text, ok := arg.(string); ok {
			args[n] = visible(text)
		}
	}
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) in(colour, text string) painted {
	text = visible(text)
	if !p.coloured {
		return painted(text)
	}
	return painted(colour + text + plain)
}

func (p *printer) report(r *review.Report) {
	for _, b := range r.Baselines {
		switch {
		case b.None:
			p.line("%s: nothing to compare with: %s", b.Name, b.How)
		case b.Commit == "":
			p.line("%s: %s, semver %s", b.Name, count(b.Changes, "change"), b.Bump)
		default:
			p.line("%s %.12s (%s): %s, semver %s", b.Name, b.Commit, b.How, count(b.Changes, "change"), b.Bump)
		}
	}
	findings, last := shown(r), ""
	for _, pkg := range packages(findings) {
		p.line("\n%s", p.in(bold, title(pkg)))
		for _, f := range findings {
			if f.Package == pkg {
				p.finding(f, f.Element == last)
				last = f.Element
			}
		}
	}
	p.changes(r)
	hidden := map[string]int{}
	for _, f := range r.Findings {
		if f.Hidden != "" && f.Implied == "" {
			hidden[f.Hidden]++
		}
	}
	for _, why := range sortedKeys(hidden) {
		p.line("%s", p.in(faint, fmt.Sprintf("not counted: %d, because %s", hidden[why], why)))
	}
	for _, a := range r.Approvals {
		if a.State != review.Used {
			colour := yellow
			if a.Fails() {
				colour = red
			}
			p.line("%s is %s: %s", a.File, p.in(colour, string(a.State)), a.What)
		}
	}
	if r.Analysed != nil {
		looked, not := analysed(r.Analysed)
		p.line("\nconsumers: %s", looked)
		for n, what := range not {
			if n == 5 {
				p.line("  and %d more that could not be analysed in full", len(not)-n)
				break
			}
			p.line("  %s", what)
		}
	}
	if e := r.Evidence; e != nil {
		p.line("\nusage: %s", evidence(e))
	}
	ended := p.in(green, verdict(r))
	if r.Failures() > 0 {
		ended = p.in(red, verdict(r))
	}
	about := fmt.Sprintf("(%.1f s, semver %s)", r.Took.Seconds(), r.Bump)
	if r.Bump == "" { // nothing was compared
		about = fmt.Sprintf("(%.1f s)", r.Took.Seconds())
	}
	p.line("\n%s  %s", ended, p.in(faint, about))
}

// finding writes one finding; again says that the one before was about the same element, whose users it has told.
func (p *printer) finding(f *review.Finding, again bool) {
	level := painted(f.Level)
	switch {
	case f.Approval != "":
		level = p.in(green, "approved")
	case f.Level == rules.Break || f.Level == rules.Security:
		level = p.in(red, string(f.Level))
	case f.Level == rules.Care:
		level = p.in(yellow, string(f.Level))
	}
	at := f.Path
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	p.line("  %s %s  %s", level, p.in(bold, f.Rule), p.in(faint, at))
	p.line("    %s", f.Text)
	if f.Approval != "" {
		p.line("    by %s", f.Approval)
		return
	}
	if s := shapes(f); s != "" {
		p.line("    %s", s)
	}
	p.line("    %s; against %s", axes(f.Axes), strings.Join(f.Baselines, ", "))
	if c := concerned(f); c != "" {
		p.line("    %s", c)
	}
	limit := 5
	if again {
		limit = 0
	}
	uses, more := places(f, limit)
	for _, use := range uses {
		p.line("      %s", use)
	}
	if more > 0 && !again {
		p.line("      and %d more", more)
	}
	if s := seen(f); s != "" {
		p.line("    %s", s)
	}
	if f.Level == rules.Note {
		return
	}
	p.line("    %s %s", f.Why, f.WayOut)
	for line := range strings.Lines(f.Patch) {
		p.line("      %s", strings.TrimRight(line, "\n"))
	}
	p.line("    %s", p.in(faint, approve(f)))
}

// approve is the command that approves a finding.
func approve(f *review.Finding) string {
	command := "review approve " + f.Fingerprint[:8]
	for _, flag := range f.Found {
		command += " " + quoted(flag)
	}
	return command + " --owner … --reason … --expires …"
}

// quoted writes a word so that a shell takes it as one.
func quoted(word string) string {
	special := func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-_./=:,+@%", c)
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// changes lists what differs and no rule finds fault with: what no rule looks at is among it.
func (p *printer) changes(r *review.Report) {
	found := map[string]bool{}
	for _, f := range r.Findings {
		found[f.Element] = true
	}
	var lines []string
	comments := 0
	for _, c := range r.Changes {
		switch {
		case c.Comment:
			comments++
		case !found[c.Element]:
			lines = append(lines, change(c))
		}
	}
	if len(lines) > 0 {
		p.line("\n%s", p.in(bold, "no rule objects"))
		for n, line := range lines {
			if n == 20 {
				p.line("  and %d more", len(lines)-n)
				break
			}
			p.line("  %s", line)
		}
	}
	if comments > 0 {
		p.line("\n%s changed", count(comments, "comment"))
	}
}

// change writes one change in one line.
func change(c review.Change) string {
	text := fmt.Sprintf("%s %s %s", c.What, c.Kind, c.Element)
	switch {
	case c.What == "added" && c.New != "" && c.Inside == 0:
		text += ": " + c.New
	case c.Inside > 0:
		text += fmt.Sprintf(", with %d inside", c.Inside)
	case c.What == "changed":
		var attrs []string
		for _, a := range c.Attrs {
			switch {
			case a.Name == "comment":
			case a.Old == "":
				attrs = append(attrs, fmt.Sprintf("%s is now %s", a.Name, a.New))
			case a.New == "":
				attrs = append(attrs, fmt.Sprintf("%s is gone (was %s)", a.Name, a.Old))
			default:
				attrs = append(attrs, fmt.Sprintf("%s: %s → %s", a.Name, a.Old, a.New))
			}
		}
		text += ": " + strings.Join(attrs, "; ")
	}
	return text
}
