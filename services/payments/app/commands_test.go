package app

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

func TestVerifyProvesTheBooksAndNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	cfg := config(t.TempDir(), "dns:///127.0.0.1:1")
	a, err := New(t.Context(), cfg, deps(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := deps(t.Output())
	d.Out = &out
	if err := verify(t.Context(), VerifyConfig{cfg}, d); err != nil {
		t.Errorf("while the service has the books open: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := verify(t.Context(), VerifyConfig{cfg}, d); err != nil || out.String() != "0 transfers are as they must be\n" {
		t.Errorf("whole books: %q, %v", out.String(), err)
	}
	db, err := sql.Open("sqlite", filepath.Join(cfg.Data, sqlstore.File))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE head SET transfers = 3`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	err = verify(t.Context(), VerifyConfig{cfg}, d)
	if err == nil || !strings.Contains(out.String(), "broken: the head is the end of what is numbered: transfers\n") {
		t.Errorf("broken books: %q, %v", out.String(), err)
	}
	kittest.NewerDatabase(t, cfg.Data+"-newer", sqlstore.File, "payments")
	newer := cfg
	newer.Data += "-newer"
	if err := verify(t.Context(), VerifyConfig{newer}, d); !errors.Is(err, sqldb.ErrNewerSchema) {
		t.Errorf("newer books: %v", err)
	}
	for what, dir := range map[string]string{
		"a file": filepath.Join(cfg.Data, sqlstore.File), "no directory": filepath.Join(cfg.Data, "none"), "an empty one": t.TempDir(),
	} {
		cfg.Data = dir
		if err := verify(t.Context(), VerifyConfig{cfg}, d); err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "--data: ") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(dir, sqlstore.File)); err == nil {
			t.Errorf("%s: a database was made", what)
		}
	}
}
