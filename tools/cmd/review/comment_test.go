package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review/comment/githubtest"
	"github.com/concordat-dev/concordat/tools/review/report"
)

const head = "0123456789abcdef0123456789abcdef01234567"

// said runs the command in a folder without a contract and returns its exit code and what it printed.
func said(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), args, &out, &out)
	return code, out.String()
}

func TestTheCommentCommand(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	body, secret := write("review.md", report.Marker+"\nfine @ann"), write("secret", report.Marker+"\nsecret")
	link := filepath.Join(dir, "link.md")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	long := write("long.md", report.Marker+strings.Repeat("x", maxBodyFile))
	for _, row := range []struct {
		name, token string
		args        []string
		code        int
		says        string // of what is printed, or of the comment where it was written
	}{
		{"writes what it is given", githubtest.WriteToken, []string{"--pull", "7", "--body-file", body}, 0, "fine @ann"},
		{"writes what a fork left behind without its mentions", githubtest.WriteToken, []string{"--from", "mallory/shop", "--branch", "change", "--body-file", body}, 0, "fine @\u200bann"},
		{"says that there is no verdict where there is no report", githubtest.WriteToken, []string{"--pull", "7", "--body-file", filepath.Join(dir, "none.md")}, 0, "no verdict"},
		{"does not follow a link", githubtest.WriteToken, []string{"--pull", "7", "--body-file", link}, 2, "no regular file"},
		{"does not read without an end", githubtest.WriteToken, []string{"--pull", "7", "--body-file", long}, 2, "longer than"},
		{"needs a token", "", []string{"--pull", "7", "--body-file", body}, 2, "GITHUB_TOKEN"},
		{"needs a pull request", githubtest.WriteToken, []string{"--body-file", body}, 2, "--pull"},
		{"needs a branch with a repository", githubtest.WriteToken, []string{"--from", "mallory/shop", "--body-file", body}, 2, "--branch"},
		{"takes one way to find it, not two", githubtest.WriteToken, []string{"--pull", "7", "--from", "mallory/shop", "--body-file", body}, 2, "can't be used together"},
		{"says what a token lacks", githubtest.ReadToken, []string{"--pull", "7", "--body-file", body}, 2, "pull-requests: write"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := githubtest.New(t, "acme/shop")
			server.Open(githubtest.Pull{Number: 7, State: "open", Repo: "mallory/shop", Branch: "change", SHA: head})
			t.Setenv("GITHUB_TOKEN", row.token)
			t.Setenv("GITHUB_REPOSITORY", "acme/shop")
			t.Setenv("GITHUB_API_URL", server.URL)
			code, text := said(t, append([]string{"comment", "--sha", head, "--run-url", "https://github.example/runs/1"}, row.args...)...)
			if left := server.Comments(7); row.code == 0 && len(left) == 1 {
				text = left[0].Body
				if !strings.Contains(text, "https://github.example/runs/1") {
					t.Errorf("no link to the run:\n%s", text)
				}
			} else if len(left) > 0 {
				t.Errorf("left %v", left)
			}
			if code != row.code || !strings.Contains(text, row.says) {
				t.Errorf("exit code %d; want %d, and %q in:\n%s", code, row.code, row.says, text)
			}
		})
	}
}

func TestARunWithoutAVerdictLeavesNoReportOfAnEarlierOne(t *testing.T) {
	dir := t.TempDir()
	reports, outputs := filepath.Join(dir, "reports"), filepath.Join(dir, "outputs")
	if err := os.Mkdir(reports, 0o755); err != nil {
		t.Fatal(err)
	}
	for file := range reportFiles() {
		if err := os.WriteFile(filepath.Join(reports, file), []byte("all is well"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "buf.yaml"), []byte("version: v2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Not in a git repository, so there is nothing to compare with.
	t.Setenv("GIT_CEILING_DIRECTORIES", dir)
	if code, text := said(t, "--dir", dir, "--buf-from", filepath.Join("..", "..", "..", "tools"), "--reports", reports, "--outputs", outputs); code != 2 {
		t.Errorf("exit code %d; want 2: %s", code, text)
	}
	left, err := os.ReadDir(reports)
	if err != nil || len(left) != 1 || left[0].Name() != commentFile {
		t.Errorf("left %v, %v; want %s alone", left, err, commentFile)
	}
	text, err := os.ReadFile(filepath.Join(reports, commentFile))
	if err != nil || !strings.HasPrefix(string(text), report.Marker) || !strings.Contains(string(text), "no verdict") {
		t.Errorf("%s: %q, %v", commentFile, text, err)
	}
	if got, err := os.ReadFile(outputs); err != nil || string(got) != "verdict=unknown\nreport="+reports+"\n" {
		t.Errorf("outputs %q, %v", got, err)
	}
}
