package sqlstore

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

const paymentColumns = `p.number, p.payment_id, p.order_id, p.customer_id, p.amount, p.currency, p.state, p.captured, p.refunded,
	p.capturable, p.hold, p.expires_at, p.decline, p.busy, p.metadata, p.created_at, p.updated_at`

// paymentRow reads paymentColumns. All of them may be NULL, as behind a LEFT JOIN.
type paymentRow struct {
	number, amount, captured, refunded, capturable, hold, expires, busy, created, updated sql.NullInt64
	id, order, customer, currency, state, decline, metadata                               sql.NullString
}

// dest returns where to scan to.
func (r *paymentRow) dest() []any {
	return []any{&r.number, &r.id, &r.order, &r.customer, &r.amount, &r.currency, &r.state, &r.captured, &r.refunded,
		&r.capturable, &r.hold, &r.expires, &r.decline, &r.busy, &r.metadata, &r.created, &r.updated}
}

func (r *paymentRow) payment() (payments.Payment, error) {
	p := payments.Payment{
		Number: r.number.Int64, ID: payments.ID(r.id.String), Order: payments.OrderID(r.order.String),
		Customer: payments.CustomerID(r.customer.String), Amount: r.amount.Int64, Currency: payments.Currency(r.currency.String),
		State: payments.State(r.state.String), Captured: r.captured.Int64, Refunded: r.refunded.Int64,
		Capturable: r.capturable.Int64, Hold: r.hold.Int64, ExpiresAt: timeOf(r.expires), Decline: payments.Decline(r.decline.String),
		Busy: r.busy.Int64 != 0, CreatedAt: timeOf(r.created), UpdatedAt: timeOf(r.updated),
	}
	var err error
	if p.Metadata, err = decodeMetadata(r.metadata); err != nil {
		return payments.Payment{}, fmt.Errorf("metadata of payment %s: %w", p.ID, err)
	}
	return p, nil
}

func scanPayment(row scanner) (payments.Payment, error) {
	var r paymentRow
	if err := row.Scan(r.dest()...); err != nil {
		return payments.Payment{}, err
	}
	return r.payment()
}

// What an account has and holds is what its last entry says.
const (
	accountBalance = `coalesce((SELECT e.balance_after FROM entries e WHERE e.account = a.number ORDER BY e.transfer DESC LIMIT 1), 0)`
	accountHeld    = `coalesce((SELECT e.held_after FROM entries e WHERE e.account = a.number ORDER BY e.transfer DESC LIMIT 1), 0)`
	accountColumns = `a.number, a.account_id, a.owner, a.kind, a.currency, a.overdraft, ` + accountBalance + `, ` + accountHeld +
		`, a.metadata, a.created_at`
)

func scanAccount(row scanner) (ledger.Account, error) {
	var (
		a         ledger.Account
		overdraft sql.NullInt64
		metadata  sql.NullString
		created   int64
	)
	err := row.Scan(&a.Number, &a.ID, &a.Owner, &a.Kind, &a.Currency, &overdraft, &a.Balance, &a.Held, &metadata, &created)
	if err != nil {
		return ledger.Account{}, err
	}
	a.Limited, a.Limit, a.CreatedAt = overdraft.Valid, overdraft.Int64, time.UnixMicro(created).UTC()
	if a.Metadata, err = decodeMetadata(metadata); err != nil {
		return ledger.Account{}, fmt.Errorf("metadata of account %s: %w", a.ID, err)
	}
	return a, nil
}

const transferColumns = `t.number, t.kind, t.of, t.payment_id, t.expires_at, t.metadata, t.at, t.content, t.hash`

func scanTransfer(row scanner, more ...any) (ledger.Transfer, error) {
	var (
		t             ledger.Transfer
		expires       sql.NullInt64
		metadata      sql.NullString
		at            int64
		content, hash []byte
	)
	err := row.Scan(append([]any{&t.Number, &t.Kind, &t.Of, &t.Reference, &expires, &metadata, &at, &content, &hash}, more...)...)
	if err != nil {
		return ledger.Transfer{}, err
	}
	t.ExpiresAt, t.At = timeOf(expires), time.UnixMicro(at).UTC()
	if len(hash) != len(t.Hash) {
		return ledger.Transfer{}, fmt.Errorf("the hash of transfer %d has %d bytes", t.Number, len(hash))
	}
	copy(t.Hash[:], hash)
	if t.Metadata, err = decodeMetadata(metadata); err != nil {
		return ledger.Transfer{}, fmt.Errorf("metadata of transfer %d: %w", t.Number, err)
	}
	if t.Legs, t.Entries, err = decodeContent(content); err != nil {
		return ledger.Transfer{}, fmt.Errorf("content of transfer %d: %w", t.Number, err)
	}
	return t, nil
}

// encodeContent returns legs and entries in the form in which they are kept: signed varints, the number of legs and
// entries first, then account and amount of each leg, then all five numbers of each entry.
func encodeContent(t *ledger.Transfer) []byte {
	b := make([]byte, 0, 16*(len(t.Legs)+2*len(t.Entries)))
	b = binary.AppendVarint(b, int64(len(t.Legs)))
	b = binary.AppendVarint(b, int64(len(t.Entries)))
	for _, l := range t.Legs {
		b = binary.AppendVarint(b, l.Account)
		b = binary.AppendVarint(b, l.Amount)
	}
	for _, e := range t.Entries {
		for _, n := range [...]int64{e.Account, e.Amount, e.Held, e.BalanceAfter, e.HeldAfter} {
			b = binary.AppendVarint(b, n)
		}
	}
	return b
}

var errContent = errors.New("it cannot be read")

// maxLegs is more than any transfer has; it bounds what a damaged row can ask for.
const maxLegs = 1 << 16

func decodeContent(b []byte) ([]ledger.Leg, []ledger.Entry, error) {
	broken := false
	next := func() int64 {
		n, size := binary.Varint(b)
		if size <= 0 {
			broken = true
			return 0
		}
		b = b[size:]
		return n
	}
	legs, entries := next(), next()
	if broken || legs < 0 || entries < 0 || legs > maxLegs || entries > maxLegs {
		return nil, nil, errContent
	}
	l, e := make([]ledger.Leg, legs), make([]ledger.Entry, entries)
	for i := range l {
		l[i] = ledger.Leg{Account: next(), Amount: next()}
	}
	for i := range e {
		e[i] = ledger.Entry{Account: next(), Amount: next(), Held: next(), BalanceAfter: next(), HeldAfter: next()}
	}
	if broken || len(b) > 0 {
		return nil, nil, errContent
	}
	return l, e, nil
}

// keyID returns the id under which a key is kept: the first half of a SHA-256 over its parts, each with its length
// before it.
func keyID(k payments.Key) []byte {
	b := make([]byte, 0, len(k.Caller)+len(k.Method)+len(k.Key)+12)
	for _, part := range [...]string{k.Caller, k.Method, k.Key} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return sum[:16]
}

// outcome is what is kept of an outcome: what of it can change later, and where the rest is. Fields are added, never
// renamed.
type outcome struct {
	State      payments.State   `json:"state,omitempty"`
	Captured   int64            `json:"captured,omitempty"`
	Refunded   int64            `json:"refunded,omitempty"`
	Capturable int64            `json:"capturable,omitempty"`
	Hold       int64            `json:"hold,omitempty"`
	ExpiresAt  int64            `json:"expires,omitempty"` // microseconds since 1970, UTC, as all times
	Decline    payments.Decline `json:"decline,omitempty"`
	Busy       bool             `json:"busy,omitempty"`
	UpdatedAt  int64            `json:"updated,omitempty"`
	Account    int64            `json:"account,omitempty"`
	First      int64            `json:"first,omitempty"` // of the transfers
	Count      int64            `json:"count,omitempty"`
}

// encodeOutcome returns the number of the payment, nil for none, and the rest.
func encodeOutcome(o payments.Outcome) (payment any, rest string) {
	p := o.Payment
	kept := outcome{Account: o.Account.Number, Count: int64(len(o.Transfers))}
	if p.Number != 0 {
		kept = outcome{
			State: p.State, Captured: p.Captured, Refunded: p.Refunded, Capturable: p.Capturable, Hold: p.Hold,
			Decline: p.Decline, Busy: p.Busy, UpdatedAt: p.UpdatedAt.UnixMicro(),
		}
		if !p.ExpiresAt.IsZero() {
			kept.ExpiresAt = p.ExpiresAt.UnixMicro()
		}
		payment = p.Number
	}
	if kept.Count > 0 {
		kept.First = o.Transfers[0].Number
	}
	return payment, kept.text()
}

// text returns the JSON of o: by hand, because every charge pays for it, and its texts need no escapes.
func (o *outcome) text() string {
	b := append(make([]byte, 0, 128), '{')
	field := func(name string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), '"', ':')
	}
	number := func(name string, n int64) {
		if n != 0 {
			field(name)
			b = strconv.AppendInt(b, n, 10)
		}
	}
	text := func(name, s string) {
		if s != "" {
			field(name)
			b = strconv.AppendQuote(b, s)
		}
	}
	text("state", string(o.State))
	number("captured", o.Captured)
	number("refunded", o.Refunded)
	number("capturable", o.Capturable)
	number("hold", o.Hold)
	number("expires", o.ExpiresAt)
	text("decline", string(o.Decline))
	if o.Busy {
		field("busy")
		b = append(b, "true"...)
	}
	number("updated", o.UpdatedAt)
	number("account", o.Account)
	number("first", o.First)
	number("count", o.Count)
	return string(append(b, '}'))
}

// was returns p as it was when the outcome was kept.
func (o *outcome) was(p payments.Payment) payments.Payment {
	p.State, p.Captured, p.Refunded, p.Capturable, p.Hold = o.State, o.Captured, o.Refunded, o.Capturable, o.Hold
	p.Decline, p.Busy, p.UpdatedAt, p.ExpiresAt = o.Decline, o.Busy, time.UnixMicro(o.UpdatedAt).UTC(), time.Time{}
	if o.ExpiresAt != 0 {
		p.ExpiresAt = time.UnixMicro(o.ExpiresAt).UTC()
	}
	return p
}

// intent is an intent as it is kept, until its outcome is known. Fields are added, never renamed.
type intent struct {
	Caller   string                 `json:"caller"`
	Method   string                 `json:"method"`
	Key      string                 `json:"key"`
	Kind     payments.OperationKind `json:"kind"`
	Asked    string                 `json:"asked"` // the key of the operation
	Payment  payments.ID            `json:"payment"`
	Token    string                 `json:"token,omitempty"`
	Amount   int64                  `json:"amount"`
	Currency payments.Currency      `json:"currency"`
	Final    bool                   `json:"final,omitempty"`
	At       int64                  `json:"at"` // microseconds since 1970, UTC
}

// encodeIntent returns an intent as it is kept, NULL for none.
func encodeIntent(i *payments.Intent) any {
	if i == nil {
		return nil
	}
	op := i.Operation
	return jsonOf(intent{
		i.Claim.Caller, i.Claim.Method, i.Claim.Key.Key, op.Kind, op.Key, op.Payment, op.Token, op.Amount, op.Currency, op.Final,
		i.At.UnixMicro(),
	})
}

func decodeIntent(text string, digest payments.Digest) (*payments.Intent, error) {
	var i intent
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return nil, fmt.Errorf("decode intent: %w", err)
	}
	return &payments.Intent{
		Claim: payments.Claim{Key: payments.Key{Caller: i.Caller, Method: i.Method, Key: i.Key}, Digest: digest},
		Operation: payments.Operation{
			Key: i.Asked, Kind: i.Kind, Payment: i.Payment, Token: i.Token, Amount: i.Amount, Currency: i.Currency, Final: i.Final,
		},
		At: time.UnixMicro(i.At).UTC(),
	}, nil
}

func digestOf(b []byte) (payments.Digest, error) {
	if len(b) != len(payments.Digest{}) {
		return payments.Digest{}, fmt.Errorf("a digest has %d bytes", len(b))
	}
	return payments.Digest(b), nil
}

func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// micros returns a time as it is kept, NULL for the zero time.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// encodeMetadata returns metadata as it is kept, NULL for none.
func encodeMetadata(m map[string]string) any {
	if len(m) == 0 {
		return nil
	}
	return jsonOf(m)
}

// jsonOf returns the JSON of texts and numbers, which always have one.
func jsonOf(v any) string {
	encoded, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(encoded)
}

func decodeMetadata(text sql.NullString) (map[string]string, error) {
	if !text.Valid {
		return nil, nil
	}
	var m map[string]string
	return m, json.Unmarshal([]byte(text.String), &m)
}
