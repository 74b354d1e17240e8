package powercut_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/powercut"
)

// script makes a record as strace writes it, of calls on files of /d.
type script struct {
	text  strings.Builder
	lines int
}

func escaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

func (s *script) line(format string, args ...any) {
	s.lines++ // two threads take turns
	fmt.Fprintf(&s.text, "%d 1795224014.%06d ", 100+s.lines%2, s.lines*1000)
	fmt.Fprintf(&s.text, format+"\n", args...)
}

func (s *script) create(name string) {
	s.line(`openat(AT_FDCWD<%s>, "%s", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 7<%s> <0.000100>`, escaped("/"), escaped("/d/"+name), escaped("/d/"+name))
}

func (s *script) write(name string, offset int, data string) {
	s.line(`pwrite64(7<%s>, "%s", %d, %d) = %d <0.000009>`, escaped("/d/"+name), escaped(data), len(data), offset, len(data))
}

func (s *script) sync(name string) {
	s.line(`fdatasync(7<%s>) = 0 <0.000500>`, escaped(filepath.Join("/d", name)))
}

func (s *script) read(t *testing.T) *powercut.Recording {
	t.Helper()
	r, err := powercut.Read(strings.NewReader(s.text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// after returns the files after a cut at the end of the record, on a disk that had some.
func (s *script) after(t *testing.T, had map[string]string, survival powercut.Survival, seed uint64) map[string]string {
	t.Helper()
	before, left := t.TempDir(), filepath.Join(t.TempDir(), "left")
	for name, data := range had {
		if err := os.WriteFile(filepath.Join(before, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := powercut.Load(before, func(path string) bool { return strings.HasSuffix(path, "-shm") })
	if err != nil {
		t.Fatal(err)
	}
	r := s.read(t)
	if err := d.At("/d").Play(r, 0, r.Events()); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteTo(left, survival, rand.New(rand.NewPCG(seed, 0))); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	entries, err := os.ReadDir(left)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(left, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(data)
	}
	return found
}

func TestWhatSurvives(t *testing.T) {
	t.Parallel()
	had := map[string]string{"a": "old", "a-shm": "shared"}
	for name, test := range map[string]struct {
		do         func(s *script)
		lost, kept map[string]string
	}{
		"a write without a sync is lost": {
			func(s *script) { s.write("a", 0, "new") },
			map[string]string{"a": "old"}, map[string]string{"a": "new"},
		},
		"a write with a sync is there": {
			func(s *script) { s.write("a", 1, "new"); s.sync("a") },
			map[string]string{"a": "onew"}, map[string]string{"a": "onew"},
		},
		"a sync is of its file alone": {
			func(s *script) { s.create("b"); s.write("a", 0, "new"); s.write("b", 0, "b"); s.sync("b") },
			map[string]string{"a": "old", "b": "b"}, map[string]string{"a": "new", "b": "b"},
		},
		"a write after the sync is lost": {
			func(s *script) { s.write("a", 0, "1"); s.sync("a"); s.write("a", 0, "2") },
			map[string]string{"a": "1ld"}, map[string]string{"a": "2ld"},
		},
		"a write that ends while the sync is under way is not covered by it": {
			func(s *script) {
				s.line(`fsync(7<%s> <unfinished ...>`, escaped("/d/a"))
				s.write("a", 0, "new")
				s.line(`<... fsync resumed>) = 0 <0.010000>`)
			},
			map[string]string{"a": "old"}, map[string]string{"a": "new"},
		},
		"a sync that does not end makes nothing durable": {
			func(s *script) { s.write("a", 0, "new"); s.line(`fsync(7<%s> <unfinished ...>`, escaped("/d/a")) },
			map[string]string{"a": "old"}, map[string]string{"a": "new"},
		},
		"what a failed sync covered is not made durable by the next one": {
			func(s *script) {
				s.write("a", 0, "1")
				s.line(`fsync(7<%s>) = -1 EIO (Input/output error) (INJECTED) <0.000100>`, escaped("/d/a"))
				s.write("a", 1, "2")
				s.sync("a")
			},
			map[string]string{"a": "o2d"}, map[string]string{"a": "o2d"},
		},
		"a sync that only looks as if it had been done makes nothing durable": {
			func(s *script) {
				s.write("a", 0, "new")
				s.line(`fdatasync(7<%s>) = 0 (INJECTED) <0.000100>`, escaped("/d/a"))
			},
			map[string]string{"a": "old"}, map[string]string{"a": "new"},
		},
		"a new file that was not synced is not there": {
			func(s *script) { s.create("b"); s.write("b", 0, "b") },
			map[string]string{"a": "old"}, map[string]string{"a": "old", "b": "b"},
		},
		"a file that was removed comes back until the directory is synced": {
			func(s *script) { s.line(`unlink("%s") = 0 <0.000100>`, escaped("/d/a")) },
			map[string]string{"a": "old"}, map[string]string{},
		},
		"the sync of the directory makes names durable, not data": {
			func(s *script) {
				s.create("b")
				s.write("b", 0, "b")
				s.line(`unlink("%s") = 0 <0.000100>`, escaped("/d/a"))
				s.sync("")
			},
			map[string]string{"b": ""}, map[string]string{"b": "b"},
		},
		"a file that took another name": {
			func(s *script) {
				s.create("b")
				s.write("b", 0, "b")
				s.sync("b")
				s.line(`rename("%s", "%s") = 0 <0.000100>`, escaped("/d/b"), escaped("/d/a"))
			},
			map[string]string{"a": "old", "b": "b"}, map[string]string{"a": "b"},
		},
		"a file that was cut short and synced": {
			func(s *script) {
				s.line(`ftruncate(7<%s>, 1) = 0 <0.000100>`, escaped("/d/a"))
				s.sync("a")
				s.write("a", 3, "x")
			},
			map[string]string{"a": "o"}, map[string]string{"a": "o\x00\x00x"},
		},
		"a call that failed did nothing": {
			func(s *script) {
				s.line(`pwrite64(7<%s>, "%s", 3, 0) = -1 ENOSPC (No space left on device) <0.000100>`, escaped("/d/a"), escaped("new"))
				s.line(`unlink("%s") = -1 ENOENT (No such file or directory) <0.000100>`, escaped("/d/b"))
				s.sync("a")
			},
			map[string]string{"a": "old"}, map[string]string{"a": "old"},
		},
		"a write that was short": {
			func(s *script) {
				s.line(`pwrite64(7<%s>, "%s", 3, 0) = 1 <0.000100>`, escaped("/d/a"), escaped("new"))
				s.sync("a")
			},
			map[string]string{"a": "nld"}, map[string]string{"a": "nld"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{}
			test.do(s)
			if got := s.after(t, had, powercut.Lost, 0); fmt.Sprint(got) != fmt.Sprint(test.lost) {
				t.Errorf("with unsynced data lost: %q, want %q", got, test.lost)
			}
			if got := s.after(t, had, powercut.Kept, 0); fmt.Sprint(got) != fmt.Sprint(test.kept) {
				t.Errorf("with all kept: %q, want %q", got, test.kept)
			}
		})
	}
}

func TestATornFileHasOneOfTheVersionsInEachSector(t *testing.T) {
	t.Parallel()
	s := &script{}
	page := func(c string) string { return strings.Repeat(c, 1024) }
	s.write("a", 0, page("1"))
	s.write("a", 256, page("2"))
	seen := map[string]bool{}
	for seed := range uint64(200) {
		data := s.after(t, map[string]string{"a": page("0") + page("0")}, powercut.Torn, seed)["a"]
		if len(data) != 2048 {
			t.Fatalf("%d bytes", len(data))
		}
		var versions []string
		for at := 0; at < len(data); at += 512 {
			part := data[at : at+512]
			whole := strings.ReplaceAll(strings.ReplaceAll(part, part[:1], ""), part[511:], "")
			if whole != "" {
				t.Fatalf("a sector is of three versions: %q", part)
			}
			versions = append(versions, part[:1]+part[511:])
		}
		seen[strings.Join(versions, " ")] = true
	}
	// The first sector is old, new, or new with the half of the second write; so on for the others; the last was not written.
	if want := 3 * 3 * 2; len(seen) != want {
		t.Errorf("%d outcomes in 200 cuts, want %d: %v", len(seen), want, seen)
	}
}

func TestTheRecordIsRefusedWhereItIsNotUnderstood(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"a call that is not modelled":       fmt.Sprintf(`writev(7<%s>, [{iov_base="%s", iov_len=1}], 1) = 1 <0.000100>`, escaped("/d/a"), escaped("x")),
		"data that is not recorded whole":   fmt.Sprintf(`pwrite64(7<%s>, "%s"..., 9, 0) = 9 <0.000100>`, escaped("/d/a"), escaped("new")),
		"a name that is relative":           fmt.Sprintf(`unlink("%s") = 0 <0.000100>`, escaped("a")),
		"a string without escapes":          `unlink("/d/a") = 0 <0.000100>`,
		"the end of what did not begin":     `<... fsync resumed>) = 0 <0.010000>`,
		"a file that is opened to be empty": fmt.Sprintf(`open("%s", O_RDWR|O_CREAT|O_TRUNC, 0600) = 7<%s> <0.000100>`, escaped("/d/a"), escaped("/d/a")),
		"no call at all":                    "hello",
	} {
		s := &script{}
		s.line("%s", line)
		if _, err := powercut.Read(strings.NewReader(s.text.String())); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	// The end of a program that was killed is no error, nor that of one of its threads between two calls.
	s := &script{}
	s.write("a", 0, "new")
	s.line("???( <detached ...>")
	s.line("+++ killed by SIGKILL +++")
	text := s.text.String() + "101 1795224014.9"
	if r, err := powercut.Read(bytes.NewBufferString(text)); err != nil || r.Events() != 1 || r.Written() != 3 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestTheMomentOfACutIsRightBeforeTheNextEvent(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.write("a", 0, "new") // line 1
	s.sync("a")            // line 2: its begin, and its end half a millisecond later
	r := s.read(t)
	begin := time.Unix(1795224014, 2_000_000)
	if r.Events() != 3 || !r.Before(1).Equal(begin) || !r.Before(2).Equal(begin.Add(500*time.Microsecond)) {
		t.Errorf("%d events, the second at %v, the third at %v", r.Events(), r.Before(1), r.Before(2))
	}
	if r.Syncs() != 1 || fmt.Sprint(r.SyncSpans()) != "[{1 2}]" {
		t.Errorf("%d syncs, %v", r.Syncs(), r.SyncSpans())
	}
}
