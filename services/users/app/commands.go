package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
)

// BackupConfig is the settings of the command backup.
type BackupConfig struct {
	Config `embed:""`
	To     string `help:"File to write. There must be none of that name. It holds personal data and keys." placeholder:"FILE" required:""`
}

// RestoreConfig is the settings of the command restore.
type RestoreConfig struct {
	Config `embed:""`
	From   string `help:"Backup to restore." placeholder:"FILE" required:""`
}

// VerifyConfig is the settings of the command verify.
type VerifyConfig struct {
	Config `embed:""`
	From   string `help:"Backup to verify, a file. Empty means the data of the service, which is in --data or at --database-url." placeholder:"FILE"`
}

// Validate finds settings that cannot be meant.
func (c *BackupConfig) Validate() []settings.Problem { return noURL(&c.To) }

// Validate finds settings that cannot be meant.
func (c *RestoreConfig) Validate() []settings.Problem { return noURL(&c.From) }

// Validate finds settings that cannot be meant.
func (c *VerifyConfig) Validate() []settings.Problem { return noURL(&c.From) }

// noURL finds a database where a file is meant.
func noURL(file *string) []settings.Problem {
	if strings.Contains(*file, "://") {
		return []settings.Problem{settings.Wrong(file, "must be a file; --database-url says which database")}
	}
	return nil
}

// Commands returns what the program does beside serving.
func Commands() []kit.Command {
	return []kit.Command{
		kit.NewCommand("backup", "writes all data of the service, as it is at one moment, into a file. The service may be running. "+
			"The file is the same for SQLite and PostgreSQL, and can be restored on either. The data must have the schema of this program.", backup),
		kit.NewCommand("restore", "makes the data of the service from a backup, after verifying it. There must be none yet: "+
			"an empty data directory, or a PostgreSQL database without users.", restore),
		kit.NewCommand("verify", "checks what must be true of the data of the service, or of a backup, and names each user of whom it is not. "+
			"It changes nothing, and the service may be running. The data must have the schema of this program; a backup may have an older one. "+
			"It ends with 1 if something is wrong.", verify),
	}
}

func backup(ctx context.Context, cfg BackupConfig, deps kit.Deps) error {
	if err := sqlstore.Backup(ctx, storeOptions(&cfg.Config, deps), cfg.To); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return say(deps, "backup written to %s", cfg.To)
}

func restore(ctx context.Context, cfg RestoreConfig, deps kit.Deps) error {
	found, err := sqlstore.Restore(ctx, storeOptions(&cfg.Config, deps), cfg.From, reporter(deps))
	if err != nil {
		return fmt.Errorf("restore %s: %w", cfg.From, err)
	}
	return say(deps, "restored %d users and %d events", found.Users, found.Events)
}

func verify(ctx context.Context, cfg VerifyConfig, deps kit.Deps) error {
	found, err := sqlstore.Verify(ctx, storeOptions(&cfg.Config, deps), cfg.From, reporter(deps))
	what := "the data of the service"
	if cfg.From != "" {
		what = "the backup " + cfg.From
	}
	switch {
	case errors.Is(err, sqlstore.ErrCorrupt):
		return fmt.Errorf("verify %s: %d users, %d events, %d problems: %w", what, found.Users, found.Events, found.Problems, err)
	case err != nil:
		return fmt.Errorf("verify %s: %w", what, err)
	}
	return say(deps, "%s: %d users and %d events are as they must be", what, found.Users, found.Events)
}

// storeOptions returns how a command opens the store of the service.
func storeOptions(cfg *Config, deps kit.Deps) sqlstore.Options {
	return sqlstore.Options{URL: cfg.URL(), Connections: cfg.DatabaseConnections, Dir: cfg.Data, Clock: deps.Clock, Random: deps.Random}
}

// reporter returns what prints a problem.
func reporter(deps kit.Deps) func(string) {
	return func(problem string) { fmt.Fprintln(deps.Out, problem) }
}

func say(deps kit.Deps, format string, args ...any) error {
	_, err := fmt.Fprintf(deps.Out, format+"\n", args...)
	return err
}
