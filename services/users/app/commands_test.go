package app

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/settings"
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
		{func() error { return verify(t.Context(), VerifyConfig{Config: data("old")}, deps) }, "the data of the service: 0 users and 0 events are as they must be"},
		{func() error { return verify(t.Context(), VerifyConfig{Config: data("nowhere"), From: file}, deps) }, "the backup " + file + ": 0 users and 0 events"},
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

func TestVerifyOfWhatIsNotThereIsAnErrorAndCountsNothing(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	deps := kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: &out}
	dir := filepath.Join(t.TempDir(), "missing")
	for what, cfg := range map[string]VerifyConfig{
		"the data of the service": {Config: Config{Settings: Settings{Data: dir}}},
		"the backup " + dir:       {From: dir},
	} {
		err := verify(t.Context(), cfg, deps)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "0 problems") || out.Len() > 0 {
			t.Errorf("%s: printed %q, %v", what, &out, err)
		}
	}
}

// Whoever runs it by a timer sees the exit code alone, which every error makes 1.
func TestVerifyOfWhatIsWrongNamesItAndIsAnError(t *testing.T) {
	t.Parallel()
	const nobody = "00000000-0000-0000-0000-000000000001"
	dir := t.TempDir()
	var out bytes.Buffer
	deps := kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: &out}
	cfg := Config{Settings: Settings{Data: filepath.Join(dir, "data")}}
	store, err := sqlstore.Open(t.Context(), storeOptions(&cfg, deps))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	whole, broken := filepath.Join(dir, "whole"), filepath.Join(dir, "broken")
	if err := backup(t.Context(), BackupConfig{Config: cfg, To: whole}, deps); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(cfg.Data, "users.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO user_labels (key, value, created_at, user_id, state) VALUES ('a', 'b', 1, '` + nobody + `', 'ACTIVE')`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		cfg  VerifyConfig
		says string // printed
		told string // in the error; empty where there is none
	}{
		"the data of the service":  {VerifyConfig{Config: cfg}, nobody, "1 problems"},
		"a backup that is cut off": {VerifyConfig{Config: cfg, From: broken}, "", "the backup " + broken},
		"a backup that is whole":   {VerifyConfig{Config: cfg, From: whole}, "as they must be", ""},
	} {
		out.Reset()
		err := verify(t.Context(), row.cfg, deps)
		if (err != nil) != (row.told != "") || !strings.Contains(out.String(), row.says) || err != nil && !strings.Contains(err.Error(), row.told) {
			t.Errorf("%s: printed %q, %v", name, &out, err)
		}
	}
}

func TestAFileOfACommandIsNoDatabase(t *testing.T) {
	t.Parallel()
	program := settings.Program{Name: Name, Description: "A test."}
	const url = "postgres://u:p@db.example/users"
	for name, err := range map[string]error{
		"verify --from":  settings.Parse(program, new(VerifyConfig), []string{"--from", url}, nil, io.Discard),
		"restore --from": settings.Parse(program, new(RestoreConfig), []string{"--from", url}, nil, io.Discard),
		"backup --to":    settings.Parse(program, new(BackupConfig), []string{"--to", url}, nil, io.Discard),
	} {
		var wrong *settings.Error
		if !errors.As(err, &wrong) || len(wrong.Problems) != 1 || !strings.Contains(wrong.Problems[0], strings.Fields(name)[1]) || strings.Contains(wrong.Problems[0], "u:p") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var cfg BackupConfig
	err := settings.Parse(program, &cfg, []string{"--to", "file", "--listen=nowhere"}, nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("a setting of the service beside it: %v", err)
	}
}
