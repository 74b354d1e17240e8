package settingstest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/settings/settingstest"
)

// recorder is a test that only remembers how it failed.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestASampleIsHeldAgainstTheNamesThatTheCodeKnows(t *testing.T) {
	known := []string{"CONCORDAT_USERS_GRACE", "CONCORDAT_USERS_LISTEN"}
	for _, row := range []struct {
		name, sample string
		want         []string // what each failure has in it
	}{
		{"complete, with a default in a comment", "# Users.\nCONCORDAT_USERS_LISTEN=:1\n#CONCORDAT_USERS_GRACE=10s\n", nil},
		{"exported, for a shell", "export CONCORDAT_USERS_LISTEN=:1\n  # CONCORDAT_USERS_GRACE = 10s\nOTHER=1\n", nil},
		{"a name that nobody knows", "CONCORDAT_USERS_LISTEN=\nCONCORDAT_USERS_GRACE=\nCONCORDAT_USERS_GONE=1\n", []string{"sample.env:3: the code does not know CONCORDAT_USERS_GONE"}},
		{"a name in a comment that nobody knows", "CONCORDAT_USERS_LISTEN=\nCONCORDAT_USERS_GRACE=\n# CONCORDAT_GONE=1\n", []string{"CONCORDAT_GONE"}},
		{"a setting that is not shown", "CONCORDAT_USERS_LISTEN=:1\n", []string{"CONCORDAT_USERS_GRACE is missing"}},
		{"a name in prose is no assignment", "CONCORDAT_USERS_LISTEN=:1\n# see CONCORDAT_USERS_GRACE=10s\n", []string{"CONCORDAT_USERS_GRACE is missing"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sample.env")
			if err := os.WriteFile(path, []byte(row.sample), 0o600); err != nil {
				t.Fatal(err)
			}
			r := &recorder{TB: t}
			settingstest.CheckSample(r, path, known[:1], known[1:])
			if len(r.failures) != len(row.want) {
				t.Fatalf("failures: %q, want %q", r.failures, row.want)
			}
			for i, want := range row.want {
				if !strings.Contains(r.failures[i], want) {
					t.Errorf("failure %q, want %q in it", r.failures[i], want)
				}
			}
		})
	}
}
