package payments

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// fillers are the benchmarks that fill tables: the same charges, more of them in a transaction.
const fillers = "/callers=4096/merchants=1000/stores=1/batch=4096"

// books are a database of one engine with payments in it.
type books struct {
	data service.Data
	db   *postgres.Database // nil on SQLite
}

// growth charges tables with few payments and with many, turn by turn, and compares how fast that is, and how much memory it takes.
func (r *run) growth(ctx context.Context) ([]figure.Figure, error) {
	var figures []figure.Figure
	more := make([]float64, r.rounds) // MiB, of the engine that takes more
	for _, engine := range []string{"postgres", "sqlite"} {
		few, many, err := r.grown(ctx, engine)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", engine, err)
		}
		figures = append(figures, perRound("payments."+engine+"_growth", many.perSecond(), few.perSecond()))
		for i := range more {
			more[i] = max(more[i], many[i].resident-few[i].resident)
		}
	}
	return append(figures, figure.Median("payments.growth_memory", more)), nil
}

// grown returns the rates on few payments and on many.
func (r *run) grown(ctx context.Context, engine string) (few, many rates, err error) {
	large, took, err := r.filled(ctx, engine, "large", r.large)
	if err != nil {
		return nil, nil, err
	}
	if large.db != nil {
		// Once and not in each round: what is changed first after a checkpoint is written to the log page by page, so turns of seconds
		// that each had one would pay for what comes every five minutes.
		if _, err := large.db.Query(ctx, "CHECKPOINT"); err != nil {
			return nil, nil, err
		}
	}
	charges := contestant{engine + ", 256 callers", engine + "/callers=256/merchants=1000/stores=1/batch=512", r.turn}
	var small *books
	for round := range r.rounds {
		if small != nil {
			if err := small.remove(ctx); err != nil {
				return nil, nil, err
			}
		}
		// What a turn adds is much to those with few, so they are made anew.
		if small, _, err = r.filled(ctx, engine, fmt.Sprintf("small-%d", round), r.small); err != nil {
			return nil, nil, err
		}
		turns := []struct {
			books *books
			rates *rates
		}{{small, &few}, {large, &many}}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, t := range turns {
			turn, err := r.charge(ctx, charges, t.books.data)
			if err != nil {
				return nil, nil, err
			}
			*t.rates = append(*t.rates, turn)
		}
	}
	rows := [][]string{{"", "payments", "per second", "p99 ms", "MiB resident", "MiB on the disk at the end"}}
	for _, t := range []struct {
		name  string
		count int
		books *books
		rates rates
	}{{"few", r.small, small, few}, {"many", r.large, large, many}} {
		size, err := t.books.size(ctx)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, []string{
			t.name, fmt.Sprint(t.count), median("%.0f", t.rates.perSecond()), median("%.1f", t.rates.p99()), median("%.0f", t.rates.resident()), fmt.Sprint(size >> 20),
		})
	}
	r.out.Table(fmt.Sprintf("%s: charges of 256 callers, medians of %d rounds of %d charges", engine, r.rounds, r.turn), rows)
	r.out.Line("  many against few, round by round: %s", perRoundText(many.perSecond(), few.perSecond()))
	began := time.Now()
	for _, b := range []*books{small, large} {
		transfers, err := r.verify(ctx, b.data)
		if err != nil {
			return nil, nil, err
		}
		r.out.Line("  payments verify: %d transfers are as they must be", transfers)
	}
	r.out.Line("  %d payments were made in %s by charges, 4,096 in a transaction, and verified in %s", r.large, took.Round(time.Second/10),
		time.Since(began).Round(time.Second/10))
	for _, b := range []*books{small, large} {
		if err := b.remove(ctx); err != nil {
			return nil, nil, err
		}
	}
	return few, many, nil
}

// filled makes a database with so many payments, by charges as all others are, and says how long that took.
func (r *run) filled(ctx context.Context, engine, name string, count int) (*books, time.Duration, error) {
	b := &books{data: service.Data{Dir: filepath.Join(r.dir, name)}}
	if engine == "postgres" {
		var err error
		if b.db, err = r.server.Create(ctx); err != nil {
			return nil, 0, err
		}
		b.data.URL = b.db.URL
	}
	began := time.Now()
	charges := count*10/9 + 1 // a tenth has a key that was used before, and makes none
	if _, err := r.charge(ctx, contestant{"fill " + name, engine + fillers, charges}, b.data); err != nil {
		return nil, 0, err
	}
	took := time.Since(began)
	if b.db == nil {
		return b, took, nil
	}
	_, err := b.db.Query(ctx, "VACUUM (ANALYZE)")
	return b, took, err
}

// size returns how many bytes are on the disk.
func (b *books) size(ctx context.Context) (total int64, err error) {
	if b.db != nil {
		text, err := b.db.Query(ctx, "SELECT pg_database_size(current_database())")
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(text, 10, 64)
	}
	return total, filepath.WalkDir(b.data.Dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && !entry.IsDir() {
			total += info.Size()
		}
		return err
	})
}

func (b *books) remove(ctx context.Context) error {
	if b.db != nil {
		return b.db.Drop(ctx)
	}
	return os.RemoveAll(b.data.Dir)
}
