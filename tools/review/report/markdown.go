package report

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// Marker begins the comment on a pull request, so that the next run finds it and writes over it.
const Marker = "<!-- concordat-schema-review -->"

// MaxComment is how long a comment may be, in bytes: code hosts take 65536 characters.
const MaxComment = 60_000

// Of what can be long, a comment shows so many bytes or lines; the other formats have all of it.
const (
	longestShape  = 2_000
	longestLine   = 400
	mostUses      = 10
	mostApprovals = 30
	mostChanges   = 60
)

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
			fmt.Fprintf(&out, "\n%s more that do not fit here: the HTML report and `review` on the branch show them all.\n", count(len(sections)-n, "finding"))
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
			fmt.Fprintf(&b, "- %s: nothing to compare with: %s\n", line.Name, escape(line.How))
		case line.Commit == "":
			fmt.Fprintf(&b, "- %s: %s, suggests **%s**\n", code(line.Name), count(line.Changes, "change"), line.Bump)
		default:
			fmt.Fprintf(&b, "- %s `%.12s`: %s, suggests **%s**\n", line.Name, line.Commit, count(line.Changes, "change"), line.Bump)
		}
	}
	bad := slices.DeleteFunc(slices.Clone(r.Approvals), func(a review.ApprovalState) bool { return a.State == review.Used })
	for n, a := range bad {
		if n == mostApprovals {
			fmt.Fprintf(&b, "- and %s more that are not used\n", count(len(bad)-n, "approval"))
			break
		}
		fmt.Fprintf(&b, "- %s is **%s**: %s\n", code(a.File), a.State, escape(clip(a.What, longestLine)))
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
	fmt.Fprintf(&b, "\n<details%s><summary>%s <code>%s</code> %s</summary>\n\n", open, sign, f.Rule, inHTML(clip(f.Text, longestLine)))
	at := f.Path
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	fmt.Fprintf(&b, "%s, against %s: %s.\n\n", code(at), escape(strings.Join(f.Baselines, ", ")), axes(f.Axes))
	if f.Old != "" || f.New != "" {
		name := ""
		if f.Attr != "" {
			name = f.Attr + ": "
		}
		b.WriteString("```diff\n")
		for _, side := range []struct{ sign, text string }{{"-", f.Old}, {"+", f.New}} {
			if side.text == "" {
				continue
			}
			for line := range strings.Lines(name + clip(side.text, longestShape)) {
				fmt.Fprintf(&b, "%s %s\n", side.sign, fenced(strings.TrimRight(line, "\r\n")))
			}
		}
		b.WriteString("```\n")
	}
	if c := concerned(f); c != "" {
		fmt.Fprintf(&b, "\n**%s**\n", escape(clip(c, longestLine)))
	}
	uses, more := places(f, mostUses)
	if len(uses) > 0 {
		b.WriteString("\n")
	}
	for _, use := range uses {
		fmt.Fprintf(&b, "- %s\n", code(clip(use, longestLine)))
	}
	if more > 0 {
		fmt.Fprintf(&b, "- and %d more\n", more)
	}
	if s := seen(f); s != "" {
		fmt.Fprintf(&b, "\n%s\n", escape(s))
	}
	if f.Level != rules.Note {
		fmt.Fprintf(&b, "\n%s %s\n", escape(f.Why), escape(f.WayOut))
		if f.Patch != "" {
			fmt.Fprintf(&b, "\n```diff\n%s\n```\n", fenced(clip(f.Patch, longestShape)))
		}
		if f.Approval != "" {
			fmt.Fprintf(&b, "\nApproved by %s.\n", code(f.Approval))
		} else if f.Fails() {
			fmt.Fprintf(&b, "\nTo approve exactly this: %s\n", code(approve(f)))
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
			lines = append(lines, "- "+code(clip(change(c), longestLine)))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(&b, "\n<details><summary>Every change: %d</summary>\n\n", len(lines))
		for n, line := range lines {
			if n == mostChanges || b.Len() > 12_000 {
				fmt.Fprintf(&b, "- and %d more\n", len(lines)-n)
				break
			}
			b.WriteString(line + "\n")
		}
		b.WriteString("\n</details>\n")
	}
	if r.Analysed != nil {
		looked, not := analysed(r.Analysed)
		fmt.Fprintf(&b, "\nConsumers: %s", looked)
		if len(not) > 0 {
			fmt.Fprintf(&b, "; %d could not be analysed in full, the first: %s", len(not), escape(clip(not[0], longestLine)))
		}
		b.WriteString(".\n")
	}
	if r.Evidence != nil {
		fmt.Fprintf(&b, "\nUsage: %s.\n", escape(clip(evidence(r.Evidence), longestLine)))
	}
	return b.String()
}

// escape keeps what a contract says from becoming Markdown, HTML or a formula, and from calling anybody: an owner is asked
// by the code host itself, not anew by every run.
func escape(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "~", "\\~", "[", "\\[", "|", "\\|",
		"$", "\\$", "@", "@\u200b").Replace(text)
}

// inHTML does the same for a place where Markdown is not read, as a summary is; what stands between backticks is code.
func inHTML(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b").Replace(text)
	return quotedCode.ReplaceAllString(text, "<code>$1</code>")
}

var quotedCode = regexp.MustCompile("`([^`]*)`")

// code writes text as it is, in one line, whatever it holds.
func code(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return fence + text + fence
}

// fenced keeps text from ending its code block.
func fenced(text string) string { return strings.ReplaceAll(text, "```", "'''") }
