package baseline

import (
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
)

func TestBaselines(t *testing.T) {
	tr := repotest.New(t)
	first := tr.Contract()
	tr.Git("checkout", "--quiet", "-b", "aside")
	aside := tr.Commit("never merged")
	tr.Git("checkout", "--quiet", "main")
	second := tr.Commit("second")
	nowhere := strings.Repeat("ab", 20)

	for _, row := range []struct {
		name string
		text string
		want []Baseline
		err  string
	}{
		{name: "no release yet", text: "release: none\n", want: []Baseline{{Name: "release", Commit: ""}}},
		{name: "a release", text: "release: " + first + "\n", want: []Baseline{{Name: "release", Commit: first}}},
		{name: "what is deployed comes after the release", text: "deployed: " + first + "\nrelease: " + second + "\n", want: []Baseline{{Name: "release", Commit: second}, {Name: "deployed", Commit: first}}},
		{name: "releases whose events are kept", text: "release: " + second + "\nretained:\n  - " + first + "\n", want: []Baseline{{Name: "release", Commit: second}, {Name: "retained " + first[:12], Commit: first, Events: true}}},
		{name: "a retained release twice", text: "release: none\nretained:\n  - " + first + "\n  - " + first + "\n", err: "there twice"},
		{name: "a retained release that does not exist", text: "release: none\nretained:\n  - " + nowhere + "\n", err: "no such commit"},
		{name: "an empty file", text: "", err: "release is missing"},
		{name: "a file without release", text: "deployed: " + first + "\n", err: "release is missing"},
		{name: "a release that says nothing", text: "release:\n", err: "release is missing"},
		{name: "a release that is empty", text: "release: \"\"\n", err: "release"},
		{name: "deployed that says none", text: "release: none\ndeployed: none\n", err: "not a full commit id"},
		{name: "deployed that is empty", text: "release: none\ndeployed: \"\"\n", err: "deployed"},
		{name: "a key that means nothing", text: "release: none\nrelaese: " + first + "\n", err: "relaese"},
		{name: "a key twice", text: "release: none\nrelease: " + first + "\n", err: "already defined"},
		{name: "two documents", text: "release: none\n---\nrelease: " + first + "\n", err: "more than one document"},
		{name: "a branch, which moves", text: "release: main\n", err: "not a full commit id"},
		{name: "a shortened commit", text: "release: " + first[:12] + "\n", err: "not a full commit id"},
		{name: "a commit that does not exist", text: "release: " + nowhere + "\n", err: "no such commit"},
		{name: "a commit that main does not hold", text: "release: " + aside + "\n", err: "no ancestor of main"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr.Write("proto/baselines.yaml", row.text)
			got, err := FindBaselines(t.Context(), tr.Dir, "")
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) || strings.ContainsAny(err.Error(), "\n{") {
					t.Fatalf("got %v, %v; want an error that says %q", got, err, row.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, row.want) {
				t.Errorf("got %v, %v; want %v", got, err, row.want)
			}
		})
	}
}

func TestAMissingBaselinesFileIsAnError(t *testing.T) {
	tr := repotest.New(t)
	tr.Contract()
	if got, err := FindBaselines(t.Context(), tr.Dir, ""); err == nil {
		t.Errorf("got %v; want an error", got)
	}
}

func TestReleaseNoneIsRefusedOnceThereIsARelease(t *testing.T) {
	for _, row := range []struct {
		tag  string
		fine bool
	}{{"v0.1.0", false}, {"v2", false}, {"gen/v0.1.0", false}, {"nightly", true}} {
		t.Run(row.tag, func(t *testing.T) {
			tr := repotest.New(t)
			commit := tr.Contract()
			tr.Git("tag", row.tag)
			tr.Write("proto/baselines.yaml", "release: none\n")
			_, err := FindBaselines(t.Context(), tr.Dir, "")
			if row.fine && err != nil {
				t.Errorf("got %v; want no error", err)
			}
			if !row.fine && (err == nil || !strings.Contains(err.Error(), row.tag)) {
				t.Errorf("got %v; want an error that names the tag", err)
			}
			tr.Write("proto/baselines.yaml", "release: "+commit+"\n")
			if _, err := FindBaselines(t.Context(), tr.Dir, ""); err != nil {
				t.Errorf("with the commit named: %v", err)
			}
		})
	}
}
