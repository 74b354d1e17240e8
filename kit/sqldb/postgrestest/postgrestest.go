// Package postgrestest gives tests a PostgreSQL server of their own: it starts one from the programs that are installed,
// in a temporary directory, on a free port of the loopback interface, and ends it with the tests.
//
// A test binary has one server and each test a database of its own on it:
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
//
//	func TestStore(t *testing.T) {
//		db, err := sqldb.Open(t.Context(), sqldb.Options{URL: sqldb.URL(postgrestest.Database(t)), …})
//
// A test that stops or kills the server starts one for itself with Start. Where PostgreSQL is not installed the tests
// are skipped, and fail if the environment says CI=true.
package postgrestest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// Options say what kind of server to start.
type Options struct {
	// Durable leaves fsync on, as it is in production. Without it a crash of the machine loses data, and a killed server
	// does not.
	Durable bool
	// Settings are more settings of the server, such as "max_connections": "20".
	Settings map[string]string
	// Certificate and Key, in PEM, make the server offer TLS. Its URLs do not ask for it: their sslmode is "disable".
	Certificate, Key []byte
}

// shared is the server of the test binary.
type shared struct {
	once   sync.Once
	server *Server
	err    error
}

// binary is the one server of this process: Main has no way to hand it to the tests.
var binary shared

func (s *shared) get() (*Server, error) {
	s.once.Do(func() { s.server, s.err = start(Options{}) })
	return s.server, s.err
}

// Main runs the tests and ends the server that they have used. It returns the code to exit with.
func Main(m *testing.M) int {
	code := m.Run()
	binary.once.Do(func() {}) // nobody starts it any more
	if binary.server != nil {
		if err := binary.server.end(); err != nil {
			fmt.Fprintln(os.Stderr, "end PostgreSQL:", err)
			code = max(code, 1)
		}
	}
	return code
}

// Database makes a database on the server of the test binary, whose TestMain must call Main. It is dropped with the test.
func Database(t testing.TB) string {
	t.Helper()
	return Shared(t).Database(t)
}

// Shared returns the server of the test binary, whose TestMain must call Main. No test may stop it.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := binary.get()
	check(t, err)
	return s
}

// Start starts a server for one test, and ends it with the test.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s, err := start(opts)
	check(t, err)
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Errorf("end PostgreSQL: %v", err)
		}
	})
	return s
}

// check skips a test for want of PostgreSQL, unless it is the check of a change.
func check(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if _, missing := err.(*missingError); missing && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	t.Fatal(err)
}

// missingError: PostgreSQL is not installed.
type missingError struct{}

func (*missingError) Error() string {
	return "PostgreSQL is not installed: apt-get install postgresql, or put initdb and postgres on the PATH"
}

// programs returns the directory of the newest PostgreSQL that is installed.
func programs() (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		// A link to one program leads to where the others are.
		program, err := filepath.EvalSymlinks(filepath.Join(dir, "initdb"))
		if err != nil {
			continue
		}
		if bin := filepath.Dir(program); isProgram(program) && isProgram(filepath.Join(bin, "postgres")) {
			return bin, nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(dir string) bool {
		return !isProgram(filepath.Join(dir, "initdb")) || !isProgram(filepath.Join(dir, "postgres"))
	})
	if len(found) == 0 {
		return "", &missingError{}
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
}

func version(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // what is no number is the oldest
	return n
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// databases counts the databases of a server, each of which has a number.
type databases struct{ n atomic.Int64 }

func (d *databases) next() string { return fmt.Sprintf("test_%d", d.n.Add(1)) }

// address returns the URL of a database on 127.0.0.1.
func address(port int, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, password), Host: fmt.Sprintf("127.0.0.1:%d", port),
		Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}
