package report_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/report"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

func TestAnnotationsSayHowManyThereAreWhereGitHubShowsOnlySome(t *testing.T) {
	for _, row := range []struct {
		findings, lines int
		says            string
	}{{0, 1, "::notice title=schema review::No change of the contract"}, {9, 10, ""}, {10, 10, "and 2 more like these"}, {800, 10, "and 792 more like these"}} {
		t.Run(fmt.Sprint(row.findings), func(t *testing.T) {
			r := &review.Report{}
			for n := range row.findings {
				r.Findings = append(r.Findings, &review.Finding{Path: "a.proto", Finding: &rules.Finding{Rule: "FIELD_NO_DELETE", Level: rules.Break, Text: fmt.Sprint(n), Fingerprint: "0123456789abcdef"}})
			}
			var out bytes.Buffer
			if err := report.Annotations(&out, r); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "\n"); got != row.lines || !strings.Contains(out.String(), row.says) {
				t.Errorf("%d lines; want %d and %q\n%s", got, row.lines, row.says, &out)
			}
			if first, _, _ := strings.Cut(out.String(), "\n"); row.findings > 0 && !strings.Contains(first, fmt.Sprintf("%d findings to mend or approve", row.findings)) {
				t.Errorf("the first line says %q", first)
			}
		})
	}
}

func TestWhereNothingIsComparedNothingIsSaidOfVersions(t *testing.T) {
	r := &review.Report{Baselines: []*review.Baseline{{Name: "base", None: true, How: "the repository has no commit yet"}}}
	for name, format := range report.Formats() {
		var out bytes.Buffer
		if err := format(&out, r); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); strings.Contains(text, "semver )") || strings.Contains(text, "()") || strings.Contains(text, "<b></b>") || strings.Contains(text, "****") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}
