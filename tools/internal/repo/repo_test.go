package repo

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRootIsTheNearestFolderWithAWorkspace(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "tools", "cmd")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Root(inner); !errors.Is(err, ErrNoRoot) {
		t.Errorf("without a go.work: %q, %v; want ErrNoRoot", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.work"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, start := range []string{inner, dir} {
		if got, err := Root(start); err != nil || got != dir {
			t.Errorf("from %s: %q, %v; want %s", start, got, err, dir)
		}
	}
}

func TestOutputTellsAProgramThatFailedFromOneThatDidNotRun(t *testing.T) {
	out, err := Output(t.Context(), t.TempDir(), "sh", "-c", "echo said; echo complained >&2; exit 7")
	failed, ok := errors.AsType[*RunError](err)
	if !ok || failed.Code != 7 || failed.Stderr != "complained" || out != "said" {
		t.Errorf("a program that failed: %q, %v", out, err)
	}
	_, err = Output(t.Context(), t.TempDir(), "no-such-program-here")
	if _, ok := errors.AsType[*RunError](err); ok || err == nil {
		t.Errorf("a program that does not exist: %v; want another error than RunError", err)
	}
	if out, err := Output(t.Context(), t.TempDir(), "echo", "well"); err != nil || out != "well" {
		t.Errorf("a program that worked: %q, %v", out, err)
	}
}
