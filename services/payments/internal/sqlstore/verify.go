package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// proofBatch is how many transfers are in memory at once.
const proofBatch = 1000

// check is a statement that returns the id of each row that breaks a rule.
type check struct{ rule, query string }

// checks are the rules that the database can hold the rows against by itself.
func checks(engine sqldb.Engine) []check {
	payload := engine.Pick(`json_extract(payload, '$.`, `convert_from(payload, 'UTF8')::json ->> '`)
	field := func(name string) string { return payload + name + `'` + engine.Pick(`)`, ``) }
	columns := `type, ` + field("id") + ` AS payment, ` + field("state") + ` AS state, CAST(` + field("of") + ` AS BIGINT) AS about`
	events := engine.Pick(`SELECT seq, `+columns+` FROM event_log`,
		`SELECT seq, `+columns+` FROM event_log UNION ALL SELECT 0, `+columns+` FROM event_log_inbox`)
	return []check{
		{"the head is the end of what is numbered", `
			SELECT 'payments' FROM head WHERE payments <> (SELECT count(*) FROM payments) OR payments <> (SELECT coalesce(max(number), 0) FROM payments)
			UNION ALL SELECT 'accounts' FROM head WHERE accounts <> (SELECT count(*) FROM accounts) OR accounts <> (SELECT coalesce(max(number), 0) FROM accounts)
			UNION ALL SELECT 'transfers' FROM head WHERE transfers <> (SELECT count(*) FROM transfers) OR transfers <> (SELECT coalesce(max(number), 0) FROM transfers)`},
		{"an entry has its transfer and its account", `
			SELECT e.transfer FROM entries e LEFT JOIN transfers t ON t.number = e.transfer LEFT JOIN accounts a ON a.number = e.account
			WHERE t.number IS NULL OR a.number IS NULL`},
		{"a pending transfer and nothing else has something left or settled", `
			SELECT coalesce(t.number, w.transfer) FROM (SELECT number FROM transfers WHERE kind = 'PENDING') t
				FULL JOIN pending w ON w.transfer = t.number WHERE t.number IS NULL OR w.transfer IS NULL`},
		{"a balance is the sum of the entries until then, and nothing less than nothing is held", `
			SELECT account FROM (SELECT account, balance_after, held_after,
				sum(amount) OVER w AS balance, sum(held) OVER w AS held FROM entries WINDOW w AS (PARTITION BY account ORDER BY transfer)) e
			WHERE balance_after <> balance OR held_after <> held OR held_after < 0`},
		{"a posting or a release is of a pending transfer, and a reversal of what has moved money", `
			SELECT t.number FROM transfers t LEFT JOIN transfers o ON o.number = t.of WHERE NOT coalesce(CASE t.kind
				WHEN 'POST' THEN o.kind = 'PENDING' WHEN 'VOID' THEN o.kind = 'PENDING'
				WHEN 'REVERSAL' THEN o.kind IN ('MOVE', 'POST') ELSE t.of = 0 END, 1 = 0)`},
		// Of two legs what is left is the amount, of more it is 1.
		{"what is left of a pending transfer is what was held and not settled", `
			SELECT w.transfer FROM pending w LEFT JOIN (
				SELECT CASE t.of WHEN 0 THEN t.number ELSE t.of END AS transfer, sum(e.held) AS held
				FROM transfers t JOIN entries e ON e.transfer = t.number WHERE t.kind IN ('PENDING', 'POST', 'VOID') GROUP BY 1) h
				ON h.transfer = w.transfer
			WHERE (w.remaining > 0) <> (coalesce(h.held, 0) > 0) OR w.remaining > 1 AND w.remaining <> h.held`},
		{"a payment's amounts are those of its transfers", `
			SELECT p.payment_id FROM payments p LEFT JOIN (
				SELECT t.payment_id, a.owner, a.currency, sum(CASE WHEN e.amount < 0 THEN -e.amount ELSE 0 END) AS captured,
					sum(CASE WHEN e.amount > 0 THEN e.amount ELSE 0 END) AS refunded, sum(e.held) AS held
				FROM entries e JOIN transfers t ON t.number = e.transfer JOIN accounts a ON a.number = e.account AND a.kind = 'CUSTOMER'
				WHERE t.payment_id <> '' GROUP BY t.payment_id, a.owner, a.currency) s
				ON s.payment_id = p.payment_id AND s.owner = p.customer_id AND s.currency = p.currency
			WHERE p.captured <> coalesce(s.captured, 0) OR p.refunded <> coalesce(s.refunded, 0)
				OR CASE p.state WHEN 'PROCESSING' THEN p.amount ELSE p.capturable END <> coalesce(s.held, 0)`},
		{"a transfer of a payment has its payment", `
			SELECT t.number FROM transfers t LEFT JOIN payments p ON p.payment_id = t.payment_id
			WHERE t.payment_id <> '' AND p.number IS NULL`},
		{"a payment's state is that of its amounts", `
			SELECT payment_id FROM payments WHERE NOT (CASE state
				WHEN 'PROCESSING' THEN busy = 1 AND captured = 0 AND capturable = 0 AND hold > 0
				WHEN 'FAILED' THEN busy = 0 AND captured = 0 AND capturable = 0 AND decline <> ''
				WHEN 'AUTHORIZED' THEN captured = 0 AND capturable > 0
				WHEN 'CANCELED' THEN captured = 0 AND capturable = 0
				WHEN 'CAPTURED' THEN captured > 0 AND refunded = 0
				WHEN 'PARTIALLY_REFUNDED' THEN refunded > 0 AND refunded < captured
				WHEN 'REFUNDED' THEN captured > 0 AND refunded = captured
				ELSE 1 = 0 END AND (state = 'FAILED') = (decline <> ''))`},
		{"a key has its payment", `
			SELECT k.payment FROM idempotency_keys k LEFT JOIN payments p ON p.number = k.payment
			WHERE k.payment IS NOT NULL AND p.number IS NULL`},
		{"a busy payment has an intent, and only such a one", `
			SELECT p.payment_id FROM payments p LEFT JOIN (SELECT payment FROM idempotency_keys WHERE intent IS NOT NULL) k ON k.payment = p.number
			GROUP BY p.number, p.payment_id, p.busy HAVING count(k.payment) <> p.busy`},
		// Once events have been trimmed their absence says nothing. Each event finds its payment by an index; the other way
		// round each payment would read all events.
		{"a payment has an event that says where it stands, and of all that was captured and given back", `
			SELECT p.payment_id FROM payments p LEFT JOIN (
				SELECT q.number, sum(CASE WHEN e.state = q.state THEN 1 ELSE 0 END) AS there,
					sum(CASE WHEN e.type IN ('CHARGED', 'CAPTURED') THEN e.about ELSE 0 END) AS captured,
					sum(CASE WHEN e.type = 'REFUNDED' THEN e.about ELSE 0 END) AS refunded
				FROM (` + events + `) e CROSS JOIN payments q WHERE q.payment_id = e.payment GROUP BY q.number) s ON s.number = p.number
			WHERE (SELECT trimmed FROM event_log_meta WHERE id = 1) = 0
				AND (coalesce(s.there, 0) = 0 OR s.captured <> p.captured OR s.refunded <> p.refunded)`},
		{"an event is about a payment", `
			SELECT e.seq FROM (` + events + `) e LEFT JOIN payments p ON p.payment_id = e.payment WHERE p.number IS NULL`},
	}
}

// Verify implements payments.Store: see payments.Proof.
func (s *Store) Verify(ctx context.Context) (proof payments.Proof, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		proof = payments.Proof{}
		for _, c := range checks(s.db.Engine()) {
			if err := c.run(ctx, q, &proof); err != nil {
				return fmt.Errorf("check that %s: %w", c.rule, err)
			}
		}
		p := prover{ctx: ctx, q: q, engine: s.db.Engine(), proof: &proof, found: map[string]int{}}
		return p.run()
	})
	if err != nil {
		return payments.Proof{}, fmt.Errorf("verify: %w", err)
	}
	return proof, nil
}

func (c check) run(ctx context.Context, q sqldb.Querier, proof *payments.Proof) error {
	return rows(ctx, q, func(row scanner) error {
		var id string
		err := row.Scan(&id)
		proof.Findings = append(proof.Findings, payments.Finding{Rule: c.rule, Row: id})
		return err
	}, c.query+` LIMIT `+strconv.Itoa(payments.MaxFindings))
}

// prover reads all transfers, in their order, and holds each against the one before, its entries and their accounts.
type prover struct {
	ctx    context.Context
	q      sqldb.Querier
	engine sqldb.Engine
	proof  *payments.Proof
	found  map[string]int // by rule

	head    ledger.Head
	entries int64 // that the transfers have
}

const (
	ruleChain    = "the chain of transfers is whole"
	ruleSum      = "the entries of a transfer sum to zero in each currency"
	ruleEntries  = "the entries by account are those of the transfers"
	ruleLegs     = "a transfer has at least two legs on accounts that are there"
	ruleReversed = "a reversal moves back all that was moved"
)

func (p *prover) find(rule, row string) {
	if p.found[rule]++; p.found[rule] <= payments.MaxFindings {
		p.proof.Findings = append(p.proof.Findings, payments.Finding{Rule: rule, Row: row})
	}
}

func (p *prover) run() error {
	for {
		batch, err := readTransfers(p.ctx, p.q, p.head.Transfers+1, p.head.Transfers+proofBatch)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		if err := p.batch(batch); err != nil {
			return err
		}
		if last := batch[len(batch)-1].Number; last < p.head.Transfers+proofBatch && int64(len(batch)) < proofBatch {
			p.head = ledger.Head{Transfers: last, Hash: batch[len(batch)-1].Hash}
			break
		}
		p.head = ledger.Head{Transfers: batch[len(batch)-1].Number, Hash: batch[len(batch)-1].Hash}
	}
	end, err := readHead(p.ctx, p.q, "")
	if err != nil {
		return err
	}
	if end.Ledger.Hash != p.head.Hash {
		p.find(ruleChain, "head")
	}
	var entries int64
	if err := p.q.QueryRowContext(p.ctx, `SELECT count(*) FROM entries`).Scan(&entries); err != nil {
		return err
	}
	if entries != p.entries {
		p.find(ruleEntries, fmt.Sprintf("%d entries, and the transfers have %d", entries, p.entries))
	}
	return nil
}

// account is what a transfer's entry is held against.
type account struct {
	id       ledger.AccountID
	currency string
}

func (p *prover) batch(batch []ledger.Transfer) error {
	var numbers []int64
	for _, t := range batch {
		for _, l := range t.Legs {
			numbers = append(numbers, l.Account)
		}
	}
	slices.Sort(numbers)
	accounts := make(map[int64]account)
	err := each(p.ctx, p.q, p.engine, number, slices.Compact(numbers), `SELECT a.number, a.account_id, a.currency FROM %s CROSS JOIN accounts a
		WHERE a.number = r.v`, func(row scanner) error {
		var (
			n int64
			a account
		)
		err := row.Scan(&n, &a.id, &a.currency)
		accounts[n] = a
		return err
	})
	if err != nil {
		return err
	}
	entries, err := p.entriesOf(batch)
	if err != nil {
		return err
	}
	before := p.head
	for i := range batch {
		t := &batch[i]
		p.proof.Transfers++
		p.entries += int64(len(t.Entries))
		row := strconv.FormatInt(t.Number, 10)
		if ledger.Verify(before, t, func(n int64) ledger.AccountID { return accounts[n].id }) != nil {
			p.find(ruleChain, row)
		}
		before = ledger.Head{Transfers: t.Number, Hash: t.Hash}
		if len(t.Legs) < 2 || slices.ContainsFunc(t.Legs, func(l ledger.Leg) bool { return accounts[l.Account] == account{} }) {
			p.find(ruleLegs, row)
		}
		sums := map[string]int64{}
		for _, e := range t.Entries {
			sums[accounts[e.Account].currency] += e.Amount
		}
		for _, sum := range sums {
			if sum != 0 {
				p.find(ruleSum, row)
			}
		}
		if !sameEntries(t.Entries, entries[t.Number]) {
			p.find(ruleEntries, row)
		}
		if t.Kind == ledger.Reversal {
			if whole, err := p.reverses(t); err != nil {
				return err
			} else if !whole {
				p.find(ruleReversed, row)
			}
		}
	}
	return nil
}

// reverses says whether t moves back all that the transfer which it is of has moved.
func (p *prover) reverses(t *ledger.Transfer) (bool, error) {
	of, err := readTransfers(p.ctx, p.q, t.Of, t.Of)
	if err != nil || len(of) == 0 {
		return false, err
	}
	return slices.EqualFunc(of[0].Legs, t.Legs, func(a, b ledger.Leg) bool { return a.Account == b.Account && a.Amount == -b.Amount }), nil
}

// entriesOf returns the entries by account of the transfers, by their numbers.
func (p *prover) entriesOf(batch []ledger.Transfer) (map[int64][]ledger.Entry, error) {
	found := make(map[int64][]ledger.Entry, len(batch))
	scan := func(row scanner) error {
		var (
			transfer int64
			e        ledger.Entry
		)
		err := row.Scan(&transfer, &e.Account, &e.Amount, &e.Held, &e.BalanceAfter, &e.HeldAfter)
		found[transfer] = append(found[transfer], e)
		return err
	}
	const columns = `SELECT e.transfer, e.account, e.amount, e.held, e.balance_after, e.held_after FROM `
	var (
		accounts, transfers []int64
		pairs               [][2]int64
	)
	for _, t := range batch {
		for _, e := range t.Entries {
			accounts, transfers, pairs = append(accounts, e.Account), append(transfers, t.Number), append(pairs, [2]int64{e.Account, t.Number})
		}
	}
	if p.engine == sqldb.PostgreSQL {
		return found, rows(p.ctx, p.q, scan, columns+`unnest($1::bigint[], $2::bigint[]) AS r (a, t) JOIN entries e
			ON e.account = r.a AND e.transfer = r.t`, accounts, transfers)
	}
	list, err := json.Marshal(pairs)
	if err != nil {
		return nil, err
	}
	return found, rows(p.ctx, p.q, scan, columns+`json_each($1) AS r CROSS JOIN entries e
		WHERE e.account = json_extract(r.value, '$[0]') AND e.transfer = json_extract(r.value, '$[1]')`, string(list))
}

// sameEntries compares entries in any order; a transfer has one for each account.
func sameEntries(a, b []ledger.Entry) bool {
	if len(a) != len(b) {
		return false
	}
	for _, e := range a {
		if !slices.Contains(b, e) {
			return false
		}
	}
	return true
}
