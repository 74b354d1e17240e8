package main_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTheLinesOfTheReadmeWork runs the shell blocks of the README's section "Try it", as they are printed but for the
// ports and the directory, which are those of this test.
func TestTheLinesOfTheReadmeWork(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "## Try it\n")
	if !ok {
		t.Fatal("the README has no section \"Try it\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) < 6 {
		t.Fatalf("the section has %d shell blocks, want at least 6", len(blocks))
	}
	dir := t.TempDir()
	s := run(t, dir)
	here := strings.NewReplacer(
		"localhost:8080", s.http, "localhost:8081", s.grpc, "localhost:50051", s.auth,
		".concordat/pki", filepath.Join(dir, ".concordat", "pki"),
	)
	setup := here.Replace(blocks[0][1]) // signs in; the others need what it leaves in variables
	out := shell(t, setup+"\nprintf '\\n%s/%s' \"$TOKEN\" \"$USER_ID\"", false)
	vars := strings.Split(strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), "/")
	if len(vars) != 2 || len(vars[0]) < 100 || len(vars[1]) != 36 {
		t.Fatalf("the first block leaves the variables %q; it printed:\n%s", vars, out)
	}
	sample := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(section)
	if sample == nil {
		t.Fatal("the section shows no error")
	}
	wrong := `{"order_id": "order-1", "amount_cents": 49, "currency": "EUR", "idempotency_key": "key-2", "customer_id": "` + vars[1] + `"}`
	answer := shell(t, "curl -sS "+s.http+"/v1/charges -H 'authorization: Bearer "+vars[0]+"' --json '"+wrong+"'", false)
	if got, want := comparable(t, answer), comparable(t, sample[1]); got != want {
		t.Errorf("the error of the README is not the one that comes:\n%s\n%s", want, got)
	}
	preset := "TOKEN=" + vars[0] + "\nUSER_ID=" + vars[1] + "\n"
	wants := []string{"idempotency-replayed|payment_id|paymentId", "payments.v1.PaymentService", "order-1", "resumeToken|resume_token", `"active": true`}
	for i, block := range blocks[1:] {
		text := block[1]
		out := shell(t, preset+here.Replace(text), strings.Contains(text, "Ctrl-C ends it"))
		if regexp.MustCompile(`(?m)^(ERROR:|\{"code":)`).MatchString(out) { // grpcurl's error, and the gateway's
			t.Errorf("block %d ends in an error:\n%s%s", i+1, text, out)
		}
		if i < len(wants) && !regexp.MustCompile(wants[i]).MatchString(out) {
			t.Errorf("block %d does not print %s:\n%s%s", i+1, wants[i], text, out)
		}
	}
}

// comparable returns JSON in one form, with every request id the same.
func comparable(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(string(b), `"request_id":"…"`)
}

// shell runs a script in the repository and returns what it printed. One that goes on for ever is interrupted as a person
// would, once it has printed something.
func shell(t *testing.T, script string, forever bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-e", "-c", script)
	cmd.Dir = root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := newWatched()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if forever {
		if _, err := out.find(ctx, regexp.MustCompile(`\}`)); err != nil {
			t.Errorf("nothing came: %v\n%s", err, out)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		return out.String()
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s\n%s", err, script, out)
	}
	return out.String()
}
