package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/users/app"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

func TestTheDatabaseURLChoosesPostgreSQL(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	cfg := config(t, "--database-url="+url)
	for range 2 { // it is made, and opened again
		a, err := app.New(t.Context(), cfg, deps())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	if found, err := filepath.Glob(filepath.Join(cfg.Data, "*.db")); err != nil || len(found) > 0 {
		t.Errorf("beside it there is %v, %v", found, err)
	}
	cfg.DatabaseURL = settings.Secret(strings.Replace(url, "/test_", "/no_", 1))
	_, err := app.New(t.Context(), cfg, deps())
	if err == nil || !strings.HasPrefix(err.Error(), "--database-url: ") || strings.ContainsAny(err.Error(), "\n") ||
		strings.Contains(err.Error(), postgrestest.Shared(t).Password()) {
		t.Errorf("without a database: %v", err)
	}
}
