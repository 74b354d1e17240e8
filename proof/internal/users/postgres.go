package users

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoPostgres: PostgreSQL, or its pgbench, is not installed.
var ErrNoPostgres = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// settings are those that differ from what PostgreSQL has by itself. What decides on durability is as it is.
var settings = []string{"listen_addresses=127.0.0.1", "shared_buffers=512MB", "max_wal_size=4GB", "max_connections=100", "log_min_messages=warning", "lc_messages=C"}

// superuser is the only one there is.
const superuser = "proof"

// postgres is a PostgreSQL server of ours.
type postgres struct {
	*program
	bin, dir, host, port, password, version string

	owner *syscall.Credential // who runs it: initdb refuses root; nil means ourselves
}

// startPostgres makes a cluster in the directory and starts a server on it.
func startPostgres(ctx context.Context, dir string) (p *postgres, err error) {
	p = &postgres{dir: dir, password: rand.Text()}
	if p.bin, err = programs(); err != nil {
		return nil, err
	}
	if p.owner, err = owner(); err != nil {
		return nil, err
	}
	if err := p.cluster(ctx); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if p.host, p.port, err = net.SplitHostPort(address); err != nil {
		return nil, err
	}
	args := []string{"-D", filepath.Join(dir, "data"), "-p", p.port, "-k", ""}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	if p.program, err = launch(p.command(context.Background(), "postgres", args...), filepath.Join(filepath.Dir(dir), "postgres.log")); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, p.said()), p.end())
	}
	return p, nil
}

// programs returns the directory of the newest PostgreSQL that is installed.
func programs() (string, error) {
	var found []string
	if program, err := exec.LookPath("pgbench"); err == nil {
		if program, err = filepath.EvalSymlinks(program); err == nil {
			found = append(found, filepath.Dir(program))
		}
	}
	packaged, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(packaged, func(a, b string) int { return packageVersion(b) - packageVersion(a) })
	for _, dir := range append(found, packaged...) {
		complete := true
		for _, name := range []string{"initdb", "postgres", "psql", "pgbench"} {
			_, err := exec.LookPath(filepath.Join(dir, name))
			complete = complete && err == nil
		}
		if complete {
			return dir, nil
		}
	}
	return "", ErrNoPostgres
}

func packageVersion(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // what is no number is the oldest
	return n
}

// owner returns who is to run the server.
func owner() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uerr, gerr)
}

// command returns a program of PostgreSQL that runs as the owner.
func (p *postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "PGPASSWORD=" + p.password}
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner, Setpgid: true} // an interrupt at the keyboard is for us, who end it
	return cmd
}

// cluster makes the directory and the cluster in it.
func (p *postgres) cluster(ctx context.Context) error {
	// The owner reaches the directory through the one that is ours alone, so that has to let others through.
	if err := os.Chmod(filepath.Dir(p.dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return err
	}
	secret := filepath.Join(p.dir, "password")
	if err := os.WriteFile(secret, []byte(p.password+"\n"), 0o600); err != nil {
		return err
	}
	if p.owner != nil {
		for _, file := range []string{p.dir, secret} {
			if err := os.Chown(file, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
				return err
			}
		}
	}
	out, err := p.command(ctx, "initdb", "--pgdata="+filepath.Join(p.dir, "data"), "--username="+superuser, "--pwfile="+secret,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// ready waits until the server answers. It has no other way to say so.
func (p *postgres) ready(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if p.version, err = p.query(ctx, "postgres", "SHOW server_version"); err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		}
	}
}

// query runs a statement and returns what it prints.
func (p *postgres) query(ctx context.Context, database, statement string) (string, error) {
	cmd := p.command(ctx, "psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--host="+p.host, "--port="+p.port,
		"--username="+superuser, "--dbname="+database, "--command="+statement)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", statement, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// create makes a database and returns its URL.
func (p *postgres) create(ctx context.Context, name string) (string, error) {
	if _, err := p.query(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, p.password), Host: net.JoinHostPort(p.host, p.port), Path: name,
		RawQuery: "sslmode=disable",
	}
	return u.String(), nil
}

// vacuum does what autovacuum would within the next minutes, so that it does not depend on when a run meets it.
func (p *postgres) vacuum(ctx context.Context, database string) error {
	if _, err := p.query(ctx, database, "VACUUM (ANALYZE)"); err != nil {
		return err
	}
	_, err := p.query(ctx, database, "CHECKPOINT")
	return err
}

// bench returns a command of pgbench on a database.
func (p *postgres) bench(ctx context.Context, database string, args ...string) *exec.Cmd {
	cmd := p.command(ctx, "pgbench", append([]string{"--host=" + p.host, "--port=" + p.port, "--username=" + superuser}, append(args, database)...)...)
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	return cmd
}

// rateLine is where pgbench prints its rate.
var rateLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)

// selects returns the transactions a second of `pgbench -S` with so many clients.
func (p *postgres) selects(ctx context.Context, database string, clients int, during time.Duration) (float64, error) {
	seconds := max(1, int(during.Seconds()))
	out, err := p.bench(ctx, database, "--no-vacuum", "--select-only", "--protocol=prepared", fmt.Sprintf("--client=%d", clients),
		fmt.Sprintf("--jobs=%d", min(clients, 2)), fmt.Sprintf("--time=%d", seconds)).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	m := rateLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench prints no rate:\n%s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// end ends the server; what it has is needed no more.
func (p *postgres) end() error { return p.signal(syscall.SIGQUIT) }
