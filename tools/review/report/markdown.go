package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// Marker begins the comment on a pull request, so that the next run finds it and writes over it.
const Marker = "<!-- concordat-schema-review -->"

// MaxComment is how long a comment may be, in bytes: code hosts take 65536 characters.
const MaxComment = 60_000

// Markdown writes the comment for a pull request: the verdict first, what fails open, the rest to unfold. It is at most
// MaxComment bytes long and says how much it left out.
func Markdown(w io.Writer, r *review.Report) error {
	var sections []string
	findings := shown(r)
	for _, open := range []bool{true, false} {
		for _, pkg := range packages(findings) {
			for _, f := range findings {
				if f.Package == pkg && f.Fails() == open {
					sections = append(sections, markdownFinding(f))
				}
			}
		}
	}
	head, tail := markdownHead(r), markdownTail(r)
	room := MaxComment - len(head) - len(tail) - 200
	var out bytes.Buffer
	out.WriteString(head)
	for n, section := range sections {
		if out.Len()-len(head)+len(section) > room {
			fmt.Fprintf(&out, "\n%d more findings do not fit here: the HTML report and `review` on the branch show them all.\n", len(sections)-n)
			break
		}
		out.WriteString(section)
	}
	out.WriteString(tail)
	_, err := w.Write(out.Bytes())
	return err
}

// NoVerdict writes the comment of a run that reached no verdict, so that the one of an earlier run does not stand as if it
// were about this commit.
func NoVerdict(w io.Writer, problem string) error {
	const most = 8_000
	if len(problem) > most {
		problem = strings.ToValidUTF8(problem[:most], "") + " …"
	}
	_, err := fmt.Fprintf(w, "%s\n### ⚠️ Schema review: no verdict\n\nWhether the contract is kept could not be told, so the check is red.\n\n```\n%s\n```\n",
		Marker, fenced(strings.TrimSpace(problem)))
	return err
}

func markdownHead(r *review.Report) string {
	var b strings.Builder
	fmt.Fprintln(&b, Marker)
	sign := "✅"
	if r.Failures() > 0 {
		sign = "❌"
	}
	fmt.Fprintf(&b, "### %s Schema review\n\n**%s.**\n\n", sign, verdict(r))
	for _, line := range r.Baselines {
		switch {
		case line.None:
			fmt.Fprintf(&b, "- %s: nothing to compare with: %s\n", line.Name, line.How)
		default:
			fmt.Fprintf(&b, "- %s `%.12s`: %d changes, suggests **%s**\n", line.Name, cmp.Or(line.Commit, line.Name), line.Changes, line.Bump)
		}
	}
	for _, a := range r.Approvals {
		if a.State != review.Used {
			fmt.Fprintf(&b, "- `%s` is **%s**: %s\n", a.File, a.State, a.What)
		}
	}
	return b.String()
}

func markdownFinding(f *review.Finding) string {
	var b strings.Builder
	sign := map[rules.Level]string{rules.Break: "🔴", rules.Security: "🔒", rules.Care: "🟡", rules.Note: "ℹ️"}[f.Level]
	open := " open"
	if !f.Fails() {
		open = ""
		if f.Approval != "" {
			sign = "🟢 approved"
		}
	}
	fmt.Fprintf(&b, "\n<details%s><summary>%s <code>%s</code> %s</summary>\n\n", open, sign, f.Rule, escape(f.Text))
	at := f.Path
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	fmt.Fprintf(&b, "`%s`, against %s — %s.\n\n", at, strings.Join(f.Baselines, ", "), axes(f.Axes))
	if f.Old != "" || f.New != "" {
		b.WriteString("```diff\n")
		for _, side := range []struct{ sign, text string }{{"-", f.Old}, {"+", f.New}} {
			for line := range strings.Lines(side.text) {
				fmt.Fprintf(&b, "%s %s\n", side.sign, fenced(strings.TrimRight(line, "\n")))
			}
		}
		b.WriteString("```\n")
	}
	if c := concerned(f); c != "" {
		fmt.Fprintf(&b, "\n**%s**\n", escape(c))
	}
	uses, more := places(f, 10)
	for _, use := range uses {
		fmt.Fprintf(&b, "- %s\n", mention(escape(use)))
	}
	if more > 0 {
		fmt.Fprintf(&b, "- and %d more\n", more)
	}
	if s := seen(f, time.Time{}); s != "" {
		fmt.Fprintf(&b, "\n%s\n", escape(s))
	}
	if f.Level != rules.Note {
		fmt.Fprintf(&b, "\n%s %s\n", escape(f.Why), escape(f.WayOut))
		if f.Patch != "" {
			fmt.Fprintf(&b, "\n```diff\n%s\n```\n", fenced(f.Patch))
		}
		if f.Approval != "" {
			fmt.Fprintf(&b, "\nApproved by `%s`.\n", f.Approval)
		} else if f.Fails() {
			fmt.Fprintf(&b, "\nTo approve exactly this: `%s`\n", approve(f))
		}
	}
	b.WriteString("\n</details>\n")
	return b.String()
}

func markdownTail(r *review.Report) string {
	var b strings.Builder
	var lines []string
	for _, c := range r.Changes {
		if !c.Comment {
			lines = append(lines, "- "+escape(change(c)))
		}
	}
	if len(lines) > 0 {
		const most = 60
		fmt.Fprintf(&b, "\n<details><summary>All %d changes</summary>\n\n", len(lines))
		for n, line := range lines {
			if n == most || b.Len() > 12_000 {
				fmt.Fprintf(&b, "- and %d more\n", len(lines)-n)
				break
			}
			if len(line) > 400 {
				line = line[:400] + "…"
			}
			b.WriteString(line + "\n")
		}
		b.WriteString("\n</details>\n")
	}
	if r.Analysed != nil {
		fmt.Fprintf(&b, "\nConsumers: %d packages of %d modules", r.Analysed.Packages, len(r.Analysed.Modules))
		if problems := slices.Clone(r.Analysed.Problems); len(problems) > 0 {
			fmt.Fprintf(&b, "; %d could not be analysed in full, the first: %s %s", len(problems), escape(problems[0].Where), escape(problems[0].What))
		}
		b.WriteString(".\n")
	}
	return b.String()
}

// escape keeps what a contract says from becoming Markdown or HTML.
func escape(text string) string {
	text = strings.ReplaceAll(text, "\n", " ")
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "\\*", "_", "\\_", "[", "\\[", "|", "\\|").Replace(text)
}

// fenced keeps text from ending its code block.
func fenced(text string) string { return strings.ReplaceAll(text, "```", "'''") }

// mention keeps an owner from being notified by every run: the code host asks for their review by itself.
func mention(text string) string { return strings.ReplaceAll(text, "@", "@\u200b") }
