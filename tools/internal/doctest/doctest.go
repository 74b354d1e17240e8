// Package doctest holds parts of the documentation to what the program says: a page carries the text between two marks,
// and a test compares it.
package doctest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Section compares what stands in a Markdown file between the lines `<!-- begin NAME … -->` and `<!-- end NAME -->` with
// want, line for line. With update it writes want there.
func Section(t testing.TB, file, name, want string, update bool) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, is, after, err := cut(string(page), name)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	want = strings.TrimSpace(want)
	if update {
		if err := os.WriteFile(file, []byte(before+"\n"+want+"\n\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	wanted := strings.Split(want, "\n")
	for n, line := range strings.Split(strings.TrimSpace(is), "\n") {
		switch {
		case n >= len(wanted):
			t.Fatalf("%s, %s: nothing makes the line (-update writes the section anew)\n%s", file, name, line)
		case line != wanted[n]:
			t.Fatalf("%s, %s: has the line\n%s\nwant (-update writes it)\n%s", file, name, line, wanted[n])
		}
	}
	if n := len(strings.Split(strings.TrimSpace(is), "\n")); n < len(wanted) {
		t.Fatalf("%s, %s: lacks the line (-update writes it)\n%s", file, name, wanted[n])
	}
}

// cut returns the page up to the end of the line that begins the section, the section, and the rest from the line that
// ends it.
func cut(page, name string) (before, section, after string, err error) {
	begin, end := "<!-- begin "+name, "<!-- end "+name+" -->"
	at := strings.Index(page, begin)
	if at < 0 {
		return "", "", "", fmt.Errorf("has no line %s … -->", begin)
	}
	line := strings.IndexByte(page[at:], '\n')
	to := strings.Index(page, end)
	if line < 0 || to < at+line {
		return "", "", "", fmt.Errorf("has no line %s after the one that begins it", end)
	}
	return page[:at+line+1], page[at+line+1 : to], page[to:], nil
}
