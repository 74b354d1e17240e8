package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

// VerifyConfig is the settings of the command verify.
type VerifyConfig struct {
	Config `embed:""`
}

// Commands returns what the program does beside serving.
func Commands() []kit.Command {
	return []kit.Command{
		kit.NewCommand("verify", "proves the books: the chain of transfers is whole, entries balance, balances are their sums, every "+
			"payment has its transfers and every change its event. It names each row of which that is not true, and ends with 1 then. It changes "+
			"nothing, and the service may be running. The data must have the schema of this program.", verify),
	}
}

func verify(ctx context.Context, cfg VerifyConfig, deps kit.Deps) error {
	if cfg.URL() == "" { // opening would make it, and prove it empty
		if _, err := os.Stat(filepath.Join(cfg.Data, sqlstore.File)); err != nil {
			return fmt.Errorf("%s: %w", cfg.Setting(), err)
		}
	}
	store, err := sqlstore.Open(ctx, sqlstore.Options{
		URL: cfg.URL(), Connections: cfg.DatabaseConnections, Dir: cfg.Data, Clock: deps.Clock, Random: deps.Random,
		NewID: id.Generator(deps.Clock, deps.Random), ReadOnly: true,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.Setting(), err)
	}
	proof, err := store.Verify(ctx)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	for _, f := range proof.Findings {
		if _, err := fmt.Fprintf(deps.Out, "broken: %s: %s\n", f.Rule, f.Row); err != nil {
			return err
		}
	}
	if n := len(proof.Findings); n > 0 {
		return fmt.Errorf("verify: %d transfers, %d findings", proof.Transfers, n)
	}
	_, err = fmt.Fprintf(deps.Out, "%d transfers are as they must be\n", proof.Transfers)
	return err
}
