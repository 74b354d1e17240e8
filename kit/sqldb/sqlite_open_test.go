package sqldb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// childEnv tells the test binary, started again, to be the process that a test is about.
const childEnv = "SQLDB_TEST_CHILD"

// children are the processes that tests start.
var children = map[string]func(dir string) error{
	"hold":     holdDatabase,
	"io-error": failAtCommit, "checkpoint-error": failAtCheckpoint,
}

func TestMain(m *testing.M) {
	name, dir, ok := strings.Cut(os.Getenv(childEnv), ":")
	if !ok {
		os.Exit(postgrestest.Main(m))
	}
	if err := children[name](dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child starts the test binary again as the named process on a directory.
func child(t *testing.T, name, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func TestASecondOpenIsRefusedUntilTheFirstIsClosed(t *testing.T) {
	opts := options(t.TempDir(), notes())
	first, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), opts)
	wantLine(t, err, opts.Dir)
	if !errors.Is(err, ErrLocked) {
		t.Errorf("the second Open returned %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openDB(t, opts)
}

func TestAKilledProcessGivesTheDirectoryFreeAndKeepsItsData(t *testing.T) {
	opts := options(t.TempDir(), notes())
	cmd, out := child(t, "hold", opts.Dir)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "holding\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	if _, err := Open(t.Context(), opts); !errors.Is(err, ErrLocked) {
		t.Errorf("Open beside the child returned %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	wantTexts(t, openDB(t, opts), "acknowledged")
}

func TestTheFilesAreForTheirOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	openDB(t, options(dir, notes()))
	for name, want := range map[string]os.FileMode{
		"":            os.ModeDir | 0o700,
		"lock":        0o600,
		"test.db":     0o600,
		"test.db-wal": 0o600,
		"test.db-shm": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestAPathMayHaveAnyCharacter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a b?_pragma=x&%41#ü`)
	opts := options(dir, notes())
	opts.File = "c?d%20#.db"
	db := openDB(t, opts)
	if err := add(t.Context(), db, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, opts.File)); err != nil || db.Path() != filepath.Join(dir, opts.File) {
		t.Errorf("path %s, %v", db.Path(), err)
	}
}

func TestADirectoryThatCannotBeUsedIsOneClearLine(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, []byte("this is no database, but a text that is longer than the header of one: it has more than 100 bytes in it"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(base, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	occupied := filepath.Join(base, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "test.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(base, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file, filepath.Join(other, "test.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"the directory is a file":                  file,
		"the directory is below a file":            filepath.Join(file, "data"),
		"the lock is a directory":                  taken,
		"the database is a directory":              occupied,
		"the database is a file of something else": other,
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a refused Open keeps no lock
				_, err := Open(t.Context(), options(dir, notes()))
				wantLine(t, err, dir)
				if errors.Is(err, ErrLocked) {
					t.Errorf("Open returned %v", err)
				}
			}
		})
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no directory":                 func(o *Options) { o.Dir = "" },
		"no file":                      func(o *Options) { o.File = "" },
		"a file with a path":           func(o *Options) { o.File = "../x.db" },
		"the parent directory":         func(o *Options) { o.File = ".." },
		"the file is the lock":         func(o *Options) { o.File = "lock" },
		"no clock":                     func(o *Options) { o.Clock = nil },
		"no randomness for PostgreSQL": func(o *Options) { o.URL = "postgres://localhost/db" },
		"one connection":               func(o *Options) { o.Connections = 1 },
		"fewer than no readers":        func(o *Options) { o.Readers = -1 },
		"a schema twice":               func(o *Options) { o.Migrations = []Set{notes(), notes()} },
		"a schema without files":       func(o *Options) { o.Migrations = []Set{{Name: "x"}} },
		"an empty schema":              func(o *Options) { o.Migrations = []Set{set("x")} },
		"a schema with a name that is none": func(o *Options) {
			o.Migrations = []Set{set("x; DROP TABLE notes", "SELECT 1;")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t.TempDir(), notes())
			change(&opts)
			_, err := Open(t.Context(), opts)
			wantLine(t, err, "")
		})
	}
}

func TestConnectionsAreSetUpAsPromised(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "query_only": "0", "secure_delete": "1"}
	check := func(q Querier) error {
		for pragma, value := range want {
			var got string
			if err := q.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil {
				return err
			}
			if got != value {
				t.Errorf("%s is %s, want %s", pragma, got, value)
			}
		}
		return nil
	}
	if err := db.Write(t.Context(), func(tx *Tx) error { return check(tx) }); err != nil {
		t.Error(err)
	}
	want["query_only"] = "1"
	delete(want, "secure_delete")
	if err := db.Read(t.Context(), check); err != nil {
		t.Error(err)
	}
}

func TestWhatWasDeletedIsNotInTheFilesOnceTheyAreClosed(t *testing.T) {
	opts := options(t.TempDir(), notes())
	db, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	const words = "told in confidence"
	for n := range 100 { // more than a page, some of which become free
		if err := add(t.Context(), db, fmt.Sprint(n, " ", strings.Repeat(words, 200))); err != nil {
			t.Fatal(err)
		}
	}
	found := func() bool {
		content, err := os.ReadFile(db.Path())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(content), words)
	}
	if _, _, err := db.engine.(*embedded).log("PASSIVE"); err != nil || !found() {
		t.Errorf("the words are not in the database before either, %v", err)
	}
	for _, statement := range []string{`DELETE FROM notes WHERE id > 1`, `UPDATE notes SET text = 'erased'`} {
		if err := db.Write(t.Context(), func(tx *Tx) error { return execIn(t.Context(), tx, statement) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if found() {
		t.Error("the words are in the database")
	}
	if _, err := os.Stat(db.Path() + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log is still there: %v", err)
	}
}

// wantLine checks that err is one line that names what it is about.
func wantLine(t *testing.T, err error, about string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if text := err.Error(); !strings.Contains(text, about) || strings.Contains(text, "\n") {
		t.Errorf("the error is not one line about %s: %s", about, text)
	}
}
