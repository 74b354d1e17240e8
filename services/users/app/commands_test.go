package app

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
)

func TestTheDataOfAServiceIsBackedUpVerifiedAndRestored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	var out bytes.Buffer
	deps := kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: &out}
	data := func(name string) Config { return Config{Settings: Settings{Data: filepath.Join(dir, name)}} }

	if err := backup(t.Context(), BackupConfig{Config: data("old"), To: file}, deps); err == nil {
		t.Error("what is not there was backed up")
	}
	// The service is running: its store is open.
	old := data("old")
	store, err := sqlstore.Open(t.Context(), storeOptions(&old, deps))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, step := range []struct {
		run  func() error
		want string
	}{
		{func() error { return backup(t.Context(), BackupConfig{Config: data("old"), To: file}, deps) }, "backup written to " + file},
		{func() error { return verify(t.Context(), VerifyConfig{Config: data("old")}, deps) }, "0 users and 0 events are as they must be"},
		{func() error { return verify(t.Context(), VerifyConfig{Config: data("nowhere"), From: file}, deps) }, "0 users and 0 events"},
		{func() error { return restore(t.Context(), RestoreConfig{Config: data("new"), From: file}, deps) }, "restored 0 users and 0 events"},
		{func() error { return verify(t.Context(), VerifyConfig{Config: data("new")}, deps) }, "0 users and 0 events"},
	} {
		out.Reset()
		if err := step.run(); err != nil || !strings.Contains(out.String(), step.want) {
			t.Errorf("printed %q, %v; want %q", &out, err, step.want)
		}
	}
	if err := restore(t.Context(), RestoreConfig{Config: data("new"), From: file}, deps); err == nil {
		t.Error("restored where data was")
	}
}
