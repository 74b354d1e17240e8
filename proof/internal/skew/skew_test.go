package skew

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// repository returns a new repository and what runs git in it.
func repository(t *testing.T) (dir string, git func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	git = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet", "--initial-branch=main")
	return dir, git
}

// commit writes a file and commits it, and returns the commit.
func commit(t *testing.T, dir string, git func(...string) string, path, text string) string {
	t.Helper()
	full := filepath.Join(dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	git("add", "--all")
	git("commit", "--quiet", "-m", path)
	return git("rev-parse", "HEAD")
}

func TestTheBaselineIsTheReleaseElseWhatTheChangeStartsFrom(t *testing.T) {
	dir, git := repository(t)
	t.Setenv("BASE_REF", "")
	first := commit(t, dir, git, "proto/a/v1/a.proto", "syntax = \"proto3\";\n")
	second := commit(t, dir, git, "proto/baselines.yaml", "release: none\n")
	check := func(rev, want string) {
		t.Helper()
		if got, how, err := Baseline(t.Context(), dir, rev); err != nil || got != want || how == "" {
			t.Errorf("got %q (%s), %v; want %s", got, how, err, want)
		}
	}
	check("", first) // HEAD is main: its first parent
	check("HEAD", second)
	commit(t, dir, git, "proto/baselines.yaml", "release: "+second+"\n")
	check("", second)
	if _, _, err := Baseline(t.Context(), dir, "no-such-thing"); err == nil {
		t.Error("a revision that is none is taken")
	}
}

func TestWithoutAnythingBeforeThereIsNoBaseline(t *testing.T) {
	dir, git := repository(t)
	t.Setenv("BASE_REF", "")
	commit(t, dir, git, "proto/baselines.yaml", "release: none\n")
	if got, _, err := Baseline(t.Context(), dir, ""); err == nil {
		t.Errorf("the first commit has the baseline %q", got)
	}
}

func TestAScratchCopyHasWhatIsNotCommitted(t *testing.T) {
	dir, git := repository(t)
	head := commit(t, dir, git, "a", "committed")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "a"), []byte("changed"), 0o644), os.WriteFile(filepath.Join(dir, "b"), []byte("new"), 0o644)); err != nil {
		t.Fatal(err)
	}
	before := git("status", "--porcelain")
	l := &lab{dir: t.TempDir(), new: &version{tree: dir}}
	made, err := l.snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "copy")
	remove, err := checkout(t.Context(), dir, made, tree)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "changed", "b": "new"} {
		if got, err := os.ReadFile(filepath.Join(tree, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if after := git("status", "--porcelain"); after != before || git("rev-parse", "HEAD") != head || strings.Contains(git("worktree", "list"), "copy") {
		t.Errorf("the repository is not as it was: %q", after)
	}
}

// The root of the repository, from the folder of this test.
const root = "../../.."

func TestEveryBreakCanBeMadeInTheContractAsItIs(t *testing.T) {
	kinds := map[string]bool{}
	for _, b := range breakages() {
		t.Run(b.name, func(t *testing.T) {
			tree := t.TempDir()
			before, err := os.ReadFile(filepath.Join(root, b.file))
			path := filepath.Join(tree, b.file)
			if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, before, 0o644)); err != nil {
				t.Fatal(err)
			}
			if err := b.make(tree); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			was, is := strings.Split(string(before), "\n"), strings.Split(string(after), "\n")
			changed := 0
			for i := range min(len(was), len(is)) {
				if was[i] != is[i] {
					changed++
				}
			}
			if len(was) != len(is) || changed == 0 || changed > 2 {
				t.Errorf("%d lines of %d, %d before, are other ones: want one, or two that change places", changed, len(is), len(was))
			}
			b.within = "message Gone"
			if err := b.make(tree); err == nil {
				t.Error("a break of what is not there is made")
			}
		})
		kinds[b.kind] = true
	}
	if len(kinds) != 5 {
		t.Errorf("the breaks are of the kinds %v, want all five", kinds)
	}
}

func TestTheServerSaysWhereItIs(t *testing.T) {
	s := &server{ready: make(chan struct{})}
	for line := range strings.Lines(`
Concordat is ready (812ms)

  HTTP      http://127.0.0.1:41000  (REST, Connect, gRPC-Web; what runs where, and lines to try)
  gRPC      127.0.0.1:41001  (every public method, with reflection)
  auth      127.0.0.1:41002  (services: gRPC over mutual TLS)
  users     127.0.0.1:41003
  payments  127.0.0.1:41004
  admin     http://127.0.0.1:41005  (metrics, checks, profiles)

  No administrator yet: sign up with "admin_code": "abc-def" to be the first. It works once, until the next start.

Try:
`) {
		s.hear(strings.TrimSuffix(line, "\n"))
	}
	want := transcript.Place{
		HTTP: "127.0.0.1:41000", GRPC: "127.0.0.1:41001", Auth: "127.0.0.1:41002", Users: "127.0.0.1:41003", Payments: "127.0.0.1:41004",
		AdminCode: "abc-def",
	}
	if s.at != want {
		t.Errorf("got %+v, want %+v", s.at, want)
	}
	select {
	case <-s.ready:
	default:
		t.Error("it is not ready")
	}
}

func saw(value string) []transcript.Entry {
	return []transcript.Entry{{Path: "event", Fields: []string{"p.M.f"}, Value: value}}
}

func TestResumingIsTriedInTheMiddleOfWhatEachServerWrote(t *testing.T) {
	one, two := &version{name: "one"}, &version{name: "two"}
	h := &history{events: map[string][]written{"log": {{by: one}, {by: one}, {by: one}, {by: two}, {by: two}, {by: one}, {by: one}}}}
	var got []int
	for _, p := range h.places() {
		got = append(got, p["log"])
	}
	if want := []int{1, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("after the events %v, want %v", got, want)
	}
}

func TestAGapADuplicateAndAMisreadEventAreFound(t *testing.T) {
	v := &version{name: "new", words: transcript.NewWords([]string{"p.M.f"})}
	wrote := []written{{by: v, saw: saw("1")}, {by: v, saw: saw("2")}}
	for name, row := range map[string]struct {
		got  []string
		want int
	}{
		"as it was":   {[]string{"1", "2"}, 0},
		"a gap":       {[]string{"2"}, 1},
		"a duplicate": {[]string{"1", "1", "2"}, 1},
		"the order":   {[]string{"2", "1"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{}
			var events []transcript.Event
			for _, value := range row.got {
				events = append(events, transcript.Event{Saw: saw(value)})
			}
			if h.compare("it", v, events, wrote); len(h.wrong) != row.want {
				t.Errorf("got %q, want %d", h.wrong, row.want)
			}
		})
	}
}

func TestMigrationsOfOneVersionThatAnotherLacks(t *testing.T) {
	all, err := migrations(root)
	if err != nil || len(all) < 4 {
		t.Fatalf("the tree has the migrations %v: %v", all, err)
	}
	older, newer := &version{migrations: all}, &version{migrations: append(slices.Clone(all), "services/users/x.sql")}
	if got := newer.migrates(older); !slices.Equal(got, []string{"services/users/x.sql"}) {
		t.Errorf("got %v", got)
	}
	if got := older.migrates(newer); len(got) != 0 {
		t.Errorf("the older one has %v more", got)
	}
}

func TestCallsAcrossVersionsAreJudged(t *testing.T) {
	words := transcript.NewWords([]string{"s.A.Get", "p.M.f"})
	v := &version{name: "v", words: words}
	call := func(method, step, value, problem string) transcript.Call {
		return transcript.Call{Step: step, Kind: "unary", Method: method, Problem: problem, Saw: saw(value)}
	}
	own := &pairing{client: v, server: v, calls: []transcript.Call{
		call("s.A/Get", "same", "1", ""), call("s.A/Get", "same", "2", ""), call("s.A/Get", "other", "1", ""), call("s.A/Get", "alone", "1", ""),
	}}
	across := &pairing{client: v, server: v, calls: []transcript.Call{
		call("s.A/Get", "same", "1", ""), call("s.A/Get", "same", "2", ""), call("s.A/Get", "other", "7", ""), call("s.A/Later", "later", "", "UNIMPLEMENTED"),
		call("s.A/Get", "broken", "", "it broke"),
	}}
	across.judge(figure.NewDetail(io.Discard))
	if compared := across.misread(own); compared != 3 {
		t.Errorf("%d calls are compared, want 3", compared)
	}
	var steps []string
	for _, f := range across.failures {
		steps = append(steps, f.step)
	}
	if want := []string{"broken", "other"}; !slices.Equal(steps, want) {
		t.Errorf("failures at %q, want %q: %+v", steps, want, across.failures)
	}
}
