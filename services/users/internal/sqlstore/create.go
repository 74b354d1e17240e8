package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// maxRounds is how often a transaction looks again at what another one has changed in between, before it gives up.
const maxRounds = 20

// errUndecided is the end of a transaction that found a conflict again and again, and nothing in its way.
var errUndecided = errors.New("a row was in the way and is not there, again and again")

// Create stores drafts in one transaction; see users.Store.
func (s *Store) Create(ctx context.Context, drafts []users.Draft, mode users.Mode) ([]users.Outcome, error) {
	var outcomes []users.Outcome
	err := s.write(ctx, mode, func(tx *sqldb.Tx) error {
		b := batch{store: s, tx: tx, drafts: drafts, outcomes: make([]users.Outcome, len(drafts))}
		if err := b.create(ctx); err != nil {
			return err
		}
		outcomes = b.outcomes
		return nil
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// batch is drafts on their way into one transaction.
type batch struct {
	store    *Store
	tx       *sqldb.Tx
	drafts   []users.Draft
	outcomes []users.Outcome // of the drafts, in their order
	made     []int           // the drafts that were inserted
}

// create decides all drafts. A round inserts those that have nothing in common with an earlier one that is undecided, all at once;
// the unique indexes say which of them are made. Of the others it finds what is in their way. Usually nobody is left
// for another round.
func (b *batch) create(ctx context.Context) error {
	open := make([]int, len(b.drafts))
	for i := range open {
		open[i] = i
	}
	for round := 0; len(open) > 0; round++ {
		if round > maxRounds+len(b.drafts) {
			return errUndecided
		}
		refused, err := b.insert(ctx, b.first(open))
		if err != nil {
			return fmt.Errorf("insert users: %w", err)
		}
		if open = b.undecided(open, refused); len(open) == 0 {
			break
		}
		if open, err = b.clash(ctx, open); err != nil {
			return fmt.Errorf("find what users clash with: %w", err)
		}
	}
	return b.complete(ctx)
}

// taken is what drafts can clash over.
type taken struct {
	ids    map[users.ID]bool
	emails map[string]bool
	claims map[[2]string]bool
}

func newTaken(n int) taken {
	return taken{ids: make(map[users.ID]bool, n), emails: make(map[string]bool, n), claims: make(map[[2]string]bool, n)}
}

func claimKey(c users.Claim) [2]string { return [2]string{c.RequestID, c.Caller} }

func (t taken) add(d users.Draft) {
	t.ids[d.User.ID], t.emails[d.User.Email.Key], t.claims[claimKey(d.Claim)] = true, true, true
}

func (t taken) has(d users.Draft) bool {
	return t.ids[d.User.ID] || t.emails[d.User.Email.Key] || t.claims[claimKey(d.Claim)]
}

// first returns those of the open drafts that have nothing in common with an earlier one of them.
func (b *batch) first(open []int) []int {
	t := newTaken(len(open))
	free := make([]int, 0, len(open))
	for _, i := range open {
		if !t.has(b.drafts[i]) {
			free = append(free, i)
		}
		t.add(b.drafts[i])
	}
	return free
}

// insert inserts drafts that have nothing in common, and returns those that were not made.
func (b *batch) insert(ctx context.Context, free []int) (refused map[int]bool, err error) {
	// In one order for everybody, so that batches that overlap wait for each other and not in a circle.
	order := slices.Clone(free)
	slices.SortFunc(order, func(i, j int) int { return strings.Compare(string(b.drafts[i].User.ID), string(b.drafts[j].User.ID)) })
	var made map[users.ID]bool
	if b.store.db.Engine() == sqldb.PostgreSQL {
		made, err = b.insertArrays(ctx, order)
	} else {
		made, err = b.insertValues(ctx, order)
	}
	if err != nil {
		return nil, err
	}
	refused = make(map[int]bool)
	for _, i := range free {
		if !made[b.drafts[i].User.ID] {
			refused[i] = true
			continue
		}
		b.outcomes[i] = users.Outcome{User: b.drafts[i].User}
		b.made = append(b.made, i)
	}
	return refused, nil
}

// undecided returns the open drafts that were refused or not tried.
func (b *batch) undecided(open []int, refused map[int]bool) []int {
	var left []int
	for _, i := range open {
		if refused[i] || b.outcomes[i].User.ID == "" {
			left = append(left, i)
		}
	}
	return left
}

// complete writes what belongs to the users who were made: labels and events, in the order of the drafts.
func (b *batch) complete(ctx context.Context) error {
	if len(b.made) == 0 {
		return b.tx.Confirm(ctx) // the answers are those of before
	}
	slices.Sort(b.made)
	events := make([]eventlog.Event, 0, len(b.made))
	var labels []label
	for _, i := range b.made {
		u := b.drafts[i].User
		e, err := created(u)
		if err != nil {
			return err
		}
		events = append(events, e)
		for l := range labelsOf(u) {
			labels = append(labels, l)
		}
	}
	if err := insertLabels(ctx, b.tx, b.store.db.Engine(), labels); err != nil {
		return fmt.Errorf("insert labels: %w", err)
	}
	return b.store.log.Append(ctx, b.tx, events...)
}

// clash decides the drafts that something is in the way of: a row that is committed, or of this transaction. It returns those
// that nothing is in the way of any more, and those that depend on them.
func (b *batch) clash(ctx context.Context, open []int) ([]int, error) {
	there, err := b.lookUp(ctx, open)
	if err != nil {
		return nil, err
	}
	var left []int
	t := newTaken(len(open))
	for _, i := range open {
		d := b.drafts[i]
		o, decided := there.outcome(d)
		if t.has(d) || !decided {
			t.add(d)
			left = append(left, i)
			continue
		}
		b.outcomes[i] = o
	}
	return left, nil
}
