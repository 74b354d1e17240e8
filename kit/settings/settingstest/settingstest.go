// Package settingstest holds a documented sample of settings against what the code reads.
package settingstest

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"testing"
)

// CheckSample fails t for each CONCORDAT_* variable that the .env file at path assigns and that is not among
// the known names, and for each known name that the sample lacks. An assignment that is commented out
// counts too: that is how a sample shows a default. known is what
// settings.KnownNames returned, for one program or for several.
func CheckSample(t testing.TB, path string, known ...[]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := slices.Concat(known...)
	assignment := regexp.MustCompile(`^\s*(?:#\s*)?(?:export\s+)?(CONCORDAT_[A-Za-z0-9_]*)\s*=`)
	sample := make(map[string]bool)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		m := assignment.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		sample[m[1]] = true
		if !slices.Contains(all, m[1]) {
			t.Errorf("%s:%d: the code does not know %s", path, n, m[1])
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if !sample[name] {
			t.Errorf("%s: %s is missing", path, name)
		}
	}
}
