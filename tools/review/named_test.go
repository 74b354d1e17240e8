package review_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// One fingerprint approves one finding, which fails by itself; and where one of several cannot be approved none is.
func TestAFingerprintThatDoesNotNameOneFindingThatFailsApprovesNothing(t *testing.T) {
	made := func(fingerprint string, change func(*review.Finding)) *review.Finding {
		f := &review.Finding{Finding: &rules.Finding{Rule: "FIELD_NO_DELETE", Element: "acme.v1.Thing.name", Fingerprint: fingerprint, Level: rules.Break, Text: "it is gone"}}
		if change != nil {
			change(f)
		}
		return f
	}
	report := &review.Report{Findings: []*review.Finding{
		made("aaaa11110000", nil), made("aaaa22220000", nil), made("bbbb", func(f *review.Finding) { f.Implied = "aaaa11110000" }),
		made("cccc", func(f *review.Finding) { f.Level = rules.Note }), made("dddd", func(f *review.Finding) { f.Hidden = "buf.yaml does not ask for it" }),
	}}
	by := review.Approver{Reason: "why", Owner: "@acme", Expires: today.AddDate(0, 0, 10)}
	for name, row := range map[string]struct {
		fingerprints []string
		says         string
	}{
		"the beginning of two":                {[]string{"aaaa"}, "more than one finding: aaaa11110000 and aaaa22220000"},
		"one that comes with another":         {[]string{"bbbb"}, "comes with aaaa11110000"},
		"a note":                              {[]string{"cccc"}, "needs no approval"},
		"what does not count":                 {[]string{"dddd"}, "needs no approval"},
		"one that can be, and one that is no": {[]string{"aaaa1", "ffff"}, "no finding"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files, err := review.Approve(dir, report, by, today, row.fingerprints...)
			if err == nil || !strings.Contains(err.Error(), row.says) || len(files) > 0 {
				t.Errorf("wrote %v, %v; want an error that says %q", files, err, row.says)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "proto", "approvals", "*")); len(left) > 0 {
				t.Errorf("%v was written", left)
			}
		})
	}
	dir := t.TempDir()
	files, err := review.Approve(dir, report, by, today, "aaaa1")
	if err != nil || len(files) != 1 {
		t.Fatalf("the beginning of one: %v, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(dir, files[0])); err != nil {
		t.Error(err)
	}
}
