package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// The work of a page. It is read in chunks of an index, because only what is read says whether it matches; a chunk that does not
// fill the page is followed by a larger one.
const (
	firstChunk = 512
	// maxExamined is how many entries of an index a page or a count looks at, at most.
	maxExamined = 20_000
	// maxProbes is how many ways to a few users are tried.
	maxProbes = 4
)

// List returns a page of users; see users.Store.
func (s *Store) List(ctx context.Context, query users.Query) (users.Page, error) {
	var page users.Page
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		p, err := s.pager(ctx, q, query.Selection, query.Order)
		if err != nil {
			return err
		}
		page, err = p.page(ctx, query.After, query.Limit, maxExamined)
		return err
	})
	if err != nil {
		return users.Page{}, err
	}
	return page, nil
}

// pager reads the pages of a selection on one snapshot.
type pager struct {
	store *Store
	q     sqldb.Querier
	order users.Order
	parts []users.Filter // of the filter
	seq   sequence
	few   bool            // whether the sequence is of few users, who are sorted
	rest  users.Selection // what the sequence does not see to
}

// pager finds the best way to the users of a selection.
func (s *Store) pager(ctx context.Context, q sqldb.Querier, sel users.Selection, order users.Order) (*pager, error) {
	p := &pager{store: s, q: q, order: order, parts: conjuncts(sel.Filter)}
	p.seq = sequenceOf(order.By, p.parts)
	ways := sources(p.parts, p.served())
	for _, way := range ways[:min(len(ways), maxProbes)] {
		n, err := s.probe(ctx, q, way, fewRows+1)
		if err != nil {
			return nil, fmt.Errorf("probe an index: %w", err)
		}
		if n <= fewRows {
			p.seq, p.few = sequenceOfFew(order.By, way), true
			break
		}
	}
	p.rest = users.Selection{Filter: without(p.parts, p.seq.parts), ShowDeleted: sel.ShowDeleted}
	return p, nil
}

// served returns the places of the parts that the sequence serves well: those that it is made of, and those that say
// where it begins and ends.
func (p *pager) served() []int {
	all := slices.Clone(p.seq.parts)
	for i, part := range p.parts {
		if c, ok := part.(users.Compare); ok && c.Field == p.seq.field {
			all = append(all, i)
		}
	}
	return all
}

// probe returns how many ids a source has, up to limit.
func (s *Store) probe(ctx context.Context, q sqldb.Querier, way source, limit int) (n int, err error) {
	st := s.statement().write("SELECT count(*) FROM (")
	way.query(st, limit)
	st.write(") AS entries")
	err = q.QueryRowContext(ctx, st.String(), st.args...).Scan(&n)
	return n, err
}

// page returns up to limit users after a position, and looks at no more than examined entries of an index.
func (p *pager) page(ctx context.Context, after users.Position, limit, examined int) (users.Page, error) {
	var page users.Page
	begin, end := p.seq.begin(p.order, after, p.parts), p.seq.end(p.order, p.parts)
	for size := max(firstChunk, limit+limit/4); ; size *= 4 {
		size = min(size, examined, maxExamined)
		last, more, err := p.nth(ctx, begin, end, size)
		if err != nil {
			return users.Page{}, fmt.Errorf("find the end of a chunk: %w", err)
		}
		upTo := end
		if more {
			upTo = p.seq.upTo(last)
		}
		// One more than asked for says whether there are more.
		found, err := p.read(ctx, begin, upTo, limit+1-len(page.Users))
		if err != nil {
			return users.Page{}, fmt.Errorf("read a chunk: %w", err)
		}
		page.Users = append(page.Users, found...)
		if len(page.Users) > limit {
			page.Users = page.Users[:limit]
			page.Next = p.order.Position(page.Users[limit-1])
			return page, nil
		}
		if !more {
			page.Next = users.Position{}
			return page, nil
		}
		page.Next, begin = last, p.seq.at(last)
		if examined -= size; examined <= 0 {
			return page, nil
		}
	}
}

// nth returns the position of the n-th entry of the sequence from an edge on, and whether there is one.
func (p *pager) nth(ctx context.Context, begin, end edge, n int) (users.Position, bool, error) {
	if p.few {
		return users.Position{}, false, nil
	}
	var at int64
	position := users.Position{ID: users.ID(last(p.order))}
	st := p.store.statement().write("SELECT ", p.seq.key)
	dest := []any{&position.Text}
	if p.seq.field.IsTime() {
		dest[0] = &at
	}
	if !p.seq.unique {
		st.write(", ", p.seq.id)
		dest = append(dest, (*string)(&position.ID))
	}
	p.seq.entries(st)
	p.seq.edges(st, p.order, begin, end)
	st.write("TRUE")
	p.seq.orderBy(st, p.order)
	st.write(" LIMIT 1 OFFSET ").number(n - 1)
	err := p.q.QueryRowContext(ctx, st.String(), st.args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return users.Position{}, false, nil
	}
	if p.seq.field.IsTime() {
		position.Time = time.UnixMicro(at).UTC()
	}
	return position, true, err
}

// read returns up to limit users of the selection between two edges.
func (p *pager) read(ctx context.Context, begin, end edge, limit int) ([]users.User, error) {
	st := p.store.statement()
	if p.seq.with != nil {
		p.seq.with(st)
	}
	st.write("SELECT ", userColumns)
	if p.seq.rows != nil {
		p.seq.rows(st)
	} else {
		p.seq.entries(st)
	}
	p.seq.edges(st, p.order, begin, end)
	st.selection(p.rest)
	p.seq.orderBy(st, p.order)
	st.write(" LIMIT ").arg(limit)
	return readUsers(ctx, p.q, st.String(), st.args...)
}
