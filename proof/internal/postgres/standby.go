package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Standby makes a server that follows this one, on a port of its own. Their databases have one URL for both; see Pair. The caller ends
// it with Close.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	standby := &Server{bin: s.bin, password: s.password, settings: s.settings, owner: s.owner}
	var err error
	if standby.dir, err = os.MkdirTemp("", "pgproof"); err != nil {
		return nil, err
	}
	if standby.port, err = freePort(); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	if s.owner != nil {
		if err := os.Chown(standby.dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return nil, errors.Join(err, standby.Close())
		}
	}
	if err := standby.Follow(ctx, s); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// Follow throws away what the server has, which must have ended, makes it a copy of the primary that follows it, and starts it.
func (s *Server) Follow(ctx context.Context, primary *Server) error {
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	if err := primary.tool(ctx, "pg_basebackup", append(primary.Flags(), "--pgdata="+s.data(), "--write-recovery-conf", "--checkpoint=fast",
		"--wal-method=stream", "--no-sync")...); err != nil {
		return err
	}
	return s.Restart(ctx)
}

// Promote makes a standby a primary, and returns once it takes writes. It waits for no standby then.
func (s *Server) Promote(ctx context.Context) error {
	return s.tool(ctx, "pg_ctl", "promote", "--wait", "--pgdata="+s.data())
}

// WaitForStandby says whether a commit waits until a standby has it on its disk. It returns once a standby is there for that.
func (s *Server) WaitForStandby(ctx context.Context, wait bool) error {
	names := ""
	if wait {
		names = "*"
	}
	if _, err := s.query(ctx, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'"); err != nil {
		return err
	}
	if _, err := s.query(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait {
		count, err := s.query(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming'")
		if err != nil {
			return err
		}
		if count == "1" {
			return nil
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return fmt.Errorf("no standby follows: %w", ctx.Err())
		}
	}
	return nil
}

// query returns what a statement returns, as text.
func (s *Server) query(ctx context.Context, statement string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := s.Command(ctx, "psql", append(s.Flags(), "--no-psqlrc", "--tuples-only", "--no-align", "--dbname=postgres", "--command="+statement)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", statement, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Pair returns the URL of a database of s for a client that also knows the other server, and uses the one that takes writes.
func (s *Server) Pair(database string, other *Server) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", err
	}
	u.Host += fmt.Sprintf(",127.0.0.1:%d", other.port)
	query := u.Query()
	query.Set("target_session_attrs", "read-write")
	u.RawQuery = query.Encode()
	return u.String(), nil
}
