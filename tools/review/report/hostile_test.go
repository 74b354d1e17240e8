package report_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/consumers"
	"github.com/concordat-dev/concordat/tools/review/report"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// hostile is what somebody who opens a pull request can write into a contract, an approval or a file name.
const hostile = "a | b\n```\n</pre></details><script src=\"https://evil.example/x.js\">alert(1)</script>\r\n::error file=x::forged\n" +
	"<!-- --> @concordat-dev/maintainers `code` ``more`` ![x](https://evil.example/p.png) $\\alpha$ \x1b[31mred\x07 100% ünïcode"

// many returns a report of count findings that say hostile things.
func many(count int) *review.Report {
	r := &review.Report{Version: 1, Head: hostile, Bump: "major", Baselines: []*review.Baseline{{Name: "base", Commit: strings.Repeat("a", 40), How: hostile}, {Name: hostile}}}
	for n := range count {
		f := &review.Finding{
			Finding: &rules.Finding{
				Rule: "VALIDATE_CEL_CHANGED", Level: rules.Break, Kind: schema.Field, Element: fmt.Sprintf("acme.v1.Thing.f%d", n), Package: fmt.Sprintf("acme.v%d", n/100),
				Attr: "cel", Old: hostile, New: strings.Repeat(hostile, 100), Text: "field " + hostile, Axes: rules.Axes{Wire: rules.Breaks, JSON: rules.Safe, Source: rules.Risk, Semantics: rules.Breaks},
				Why: hostile, WayOut: hostile, Patch: hostile, Fingerprint: fmt.Sprintf("%016x", n),
			},
			Path: "proto/a b/" + hostile + ".proto", Line: n, Baselines: []string{"base", hostile},
			Consumers: review.Consumers{Verdict: review.Unknown, Why: hostile},
			Seen:      []review.Seen{{Caller: hostile, Count: 1, LastSeen: today}},
		}
		for line := range 20 {
			f.Consumers.Uses = append(f.Consumers.Uses, review.Use{Use: consumers.Use{Path: hostile, Line: line, Kind: consumers.Reads, Error: hostile}, Owners: []string{"@concordat-dev/maintainers"}, Breaks: true})
		}
		r.Findings = append(r.Findings, f)
		r.Changes = append(r.Changes, review.Change{What: "changed", Kind: schema.Field, Element: f.Element, Attrs: []review.Attr{{Name: "cel", Old: hostile, New: hostile}}})
		r.Approvals = append(r.Approvals, review.ApprovalState{File: "proto/approvals/" + hostile, State: review.Malformed, What: hostile})
	}
	r.Analysed = &review.Analysed{Modules: []string{"m"}, Packages: 1, Problems: []consumers.Problem{{Where: hostile, What: hostile}}}
	return r
}

func written(t *testing.T, format report.Format, r *review.Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := format(&out, r); err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(out.Bytes()) {
		t.Error("it is not UTF-8")
	}
	return out.String()
}

// prose returns what of a Markdown text is not code, and fails where a code block does not end.
func prose(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		// What has backticks behind the fence is a code span (CommonMark 4.5).
		if strings.HasPrefix(line, "```") && !strings.Contains(strings.TrimLeft(line, "`"), "`") {
			fenced = !fenced
			continue
		}
		if fenced {
			if strings.Contains(line, "```") {
				t.Errorf("a fence inside of a code block: %s", line)
			}
			continue
		}
		out.WriteString(withoutCode(line))
	}
	if fenced {
		t.Error("a code block does not end")
	}
	return out.String()
}

// withoutCode leaves out code spans: what stands between two runs of backticks of the same length (CommonMark 6.1).
func withoutCode(line string) string {
	var out strings.Builder
	runs := regexp.MustCompile("\\\\`|`+").FindAllStringIndex(line, -1)
	at := 0
	for n := 0; n < len(runs); n++ {
		run := runs[n]
		if line[run[0]] == '\\' {
			continue
		}
		end := slices.IndexFunc(runs[n+1:], func(other []int) bool {
			return strings.TrimPrefix(line[other[0]:other[1]], "\\") == line[run[0]:run[1]]
		})
		if end < 0 {
			continue
		}
		out.WriteString(line[at:run[0]])
		n += 1 + end
		at = runs[n][1]
	}
	out.WriteString(line[at:])
	return out.String()
}

func TestACommentIsNeverTooLongAndSaysWhatItLeavesOut(t *testing.T) {
	for _, count := range []int{1, 20, 2000} {
		text := written(t, report.Markdown, many(count))
		if len(text) > report.MaxComment {
			t.Errorf("%d findings: %d bytes; want at most %d", count, len(text), report.MaxComment)
		}
		if !strings.HasPrefix(text, report.Marker+"\n") {
			t.Errorf("%d findings: the marker does not come first", count)
		}
		if said := strings.Contains(text, "do not fit here"); said != (count > 1) {
			t.Errorf("%d findings: it says that some do not fit: %v", count, said)
		}
	}
	// What is short is all there.
	r := many(2000)
	for _, f := range r.Findings {
		f.Text, f.Old, f.New, f.Why, f.WayOut, f.Patch, f.Path, f.Consumers, f.Seen = "field x was deleted", "int32 x = 1", "", "Why.", "Out.", "", "proto/x.proto", review.Consumers{}, nil
	}
	if text := written(t, report.Markdown, r); strings.Count(text, "<details open>") < 50 || len(text) > report.MaxComment {
		t.Errorf("%d findings in %d bytes", strings.Count(text, "<details open>"), len(text))
	}
}

func TestWhatAContractSaysDoesNothingInAComment(t *testing.T) {
	for name, format := range map[string]report.Format{"markdown": report.Markdown, "changelog": report.Changelog} {
		t.Run(name, func(t *testing.T) {
			text := written(t, format, many(3))
			outside := prose(t, text)
			tags := regexp.MustCompile(`<!?-?-?/?[a-zA-Z]*`)
			for _, tag := range tags.FindAllString(strings.TrimPrefix(outside, report.Marker), -1) {
				if !slices.Contains([]string{"<details", "</details", "<summary", "</summary", "<code", "</code"}, tag) {
					t.Errorf("there is a tag %s", tag)
				}
			}
			for what, pattern := range map[string]string{"a mention": `@[a-z]`, "an image": `[^\\]\[x\]\(`, "a formula": `[^\\]\$`, "a table": `[^\\]\|`} {
				// A summary is HTML, in which Markdown means nothing.
				markdown := regexp.MustCompile(`(?m)^<details.*$`).ReplaceAllString(outside, "")
				if what == "a mention" {
					markdown = outside
				}
				if found := regexp.MustCompile(pattern).FindString(markdown); found != "" {
					t.Errorf("there is %s: %s", what, found)
				}
			}
			if strings.Count(text, "<details") != strings.Count(outside, "</details>") {
				t.Error("a section does not end")
			}
		})
	}
}

func TestAnnotationsAreOneCommandALine(t *testing.T) {
	r := many(3)
	command := regexp.MustCompile(`^::(error|warning|notice) (file=[^:,\r\n]+,line=[1-9]\d*,)?title=[^:,\r\n]+::[^\r\n]+$`)
	lines := strings.Split(strings.TrimSuffix(written(t, report.Annotations, r), "\n"), "\n")
	if want := 1 + len(r.Findings) + len(r.Approvals); len(lines) != want { // the first says how it ended
		t.Errorf("%d lines; want %d", len(lines), want)
	}
	for _, line := range lines {
		if !command.MatchString(line) {
			t.Errorf("no command: %.200s", line)
		}
		if strings.Contains(line, "100% ") {
			t.Errorf("a percent sign is not escaped: %.200s", line)
		}
	}
}

func TestATerminalShowsNothingButText(t *testing.T) {
	for _, c := range written(t, report.Text(false), many(2)) {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			t.Fatalf("there is a control character %q", c)
		}
	}
	coloured := regexp.MustCompile(`\x1b\[(0|1|2|31|32|33)m`).ReplaceAllString(written(t, report.Text(true), rich(t)), "")
	if strings.Contains(coloured, "\x1b") {
		t.Error("there is a control sequence that is no colour")
	}
	if plain := written(t, report.Text(false), rich(t)); coloured != plain {
		t.Error("without its colours, the text is another one")
	}
}

func TestThePageNeedsNothingElse(t *testing.T) {
	for name, r := range map[string]*review.Report{"rich": rich(t), "hostile": many(50)} {
		text := written(t, report.HTML, r)
		for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(text, -1) {
			if regexp.MustCompile(`(?i)^<(script|img|link|iframe|object|embed|base|form|svg|a)\b|\s(src|href|on[a-z]+|style)\s*=|https?:`).MatchString(tag) {
				t.Errorf("%s: loads or runs something: %s", name, tag)
			}
		}
		if strings.Contains(text, "url(") || strings.Contains(text, "@import") {
			t.Errorf("%s: its style loads something", name)
		}
		if !strings.Contains(text, `content="default-src 'none'`) {
			t.Errorf("%s: it does not say that it needs nothing", name)
		}
	}
}

// The properties that SARIF 2.1.0 requires, and those that GitHub does
// (https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning).
func TestSARIFHasAllThatItRequires(t *testing.T) {
	type message struct{ Text string }
	type location struct {
		PhysicalLocation struct {
			ArtifactLocation struct{ URI, URIBaseID string }
			Region           struct{ StartLine, StartColumn int }
		}
	}
	for name, r := range map[string]*review.Report{"rich": rich(t), "hostile": many(3), "empty": {Version: 1}} {
		var log struct {
			Version string
			Schema  string `json:"$schema"`
			Runs    []struct {
				Tool struct {
					Driver struct {
						Name  string
						Rules []struct {
							ID                                      string
							ShortDescription, FullDescription, Help message
						}
					}
				}
				OriginalURIBaseIDs map[string]any `json:"originalUriBaseIds"`
				Results            []struct {
					RuleID, Level               string
					Message                     message
					Locations, RelatedLocations []location
					PartialFingerprints         map[string]string
					Suppressions                []struct{ Kind string }
				}
			}
		}
		if err := json.Unmarshal([]byte(written(t, report.SARIF, r)), &log); err != nil {
			t.Fatal(err)
		}
		if log.Version != "2.1.0" || log.Schema == "" || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Name == "" || log.Runs[0].Results == nil {
			t.Fatalf("%s: %+v", name, log)
		}
		run := log.Runs[0]
		known := map[string]bool{}
		for _, rule := range run.Tool.Driver.Rules {
			if known[rule.ID] || rule.ShortDescription.Text == "" || rule.FullDescription.Text == "" || rule.Help.Text == "" {
				t.Errorf("%s: the rule %+v is there twice or says too little", name, rule)
			}
			known[rule.ID] = true
		}
		if name != "empty" && len(run.Results) < 3 {
			t.Errorf("%s: %d results", name, len(run.Results))
		}
		for _, result := range run.Results {
			if !known[result.RuleID] || result.Message.Text == "" || len(result.Locations) != 1 || len(result.PartialFingerprints) == 0 || !slices.Contains([]string{"error", "warning", "note"}, result.Level) {
				t.Errorf("%s: lacks something: %+v", name, result)
			}
			for _, at := range slices.Concat(result.Locations, result.RelatedLocations) {
				uri := at.PhysicalLocation.ArtifactLocation
				if parsed, err := url.Parse(uri.URI); err != nil || parsed.IsAbs() || uri.URI == "" || strings.ContainsAny(uri.URI, " <>`|\n") || run.OriginalURIBaseIDs[uri.URIBaseID] == nil {
					t.Errorf("%s: no place: %+v: %v", name, uri, err)
				}
				if at.PhysicalLocation.Region.StartLine < 1 || at.PhysicalLocation.Region.StartColumn < 0 {
					t.Errorf("%s: counts from 1: %+v", name, at.PhysicalLocation.Region)
				}
			}
			for _, s := range result.Suppressions {
				if s.Kind != "external" && s.Kind != "inSource" {
					t.Errorf("%s: a suppression of the kind %q", name, s.Kind)
				}
			}
		}
	}
}

func TestListsOfTheJSONAreListsWhereTheyAreEmpty(t *testing.T) {
	var top map[string]any
	if err := json.Unmarshal([]byte(written(t, report.JSON, rich(t))), &top); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"baselines", "findings", "changes", "approvals"} {
		if _, ok := top[name].([]any); !ok {
			t.Errorf("%s is %T", name, top[name])
		}
	}
}
