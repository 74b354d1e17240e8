package doctest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestASectionIsWhatStandsBetweenItsLines(t *testing.T) {
	page := "# Page\n<!-- begin table: written by a test -->\n\n| a |\n\n<!-- end table -->\nmore\n"
	before, section, after, err := cut(page, "table")
	if err != nil || before != "# Page\n<!-- begin table: written by a test -->\n" || section != "\n| a |\n\n" || after != "<!-- end table -->\nmore\n" {
		t.Errorf("%q %q %q %v", before, section, after, err)
	}
	for name, text := range map[string]string{
		"no begin": "# Page\n<!-- end table -->\n", "no end": "<!-- begin table -->\n", "the wrong order": "<!-- end table -->\n<!-- begin table -->\n", "another": "<!-- begin list -->\n<!-- end list -->\n",
	} {
		if _, _, _, err := cut(text, "table"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestASectionIsWrittenAndThenFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("before\n<!-- begin table -->\nold\n<!-- end table -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	Section(t, file, "table", "| new |\n", true)
	text, err := os.ReadFile(file)
	if want := "before\n<!-- begin table -->\n\n| new |\n\n<!-- end table -->\nafter\n"; err != nil || string(text) != want {
		t.Errorf("%v: it is now\n%s", err, text)
	}
	Section(t, file, "table", "| new |", false)
}
