package ledger_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

func instant() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC) }

func note() ledger.Note { return ledger.Note{At: instant()} }

// open opens an account named by its owner, with a limit where that is zero or above.
func open(t interface{ Fatal(...any) }, b *ledger.Book, owner, currency string, limit int64) *ledger.Account {
	a, err := b.Open(ledger.Account{
		ID: ledger.AccountID("id-" + owner + "-" + currency), Key: ledger.Key{Owner: owner, Kind: ledger.General, Currency: currency},
		Limited: limit >= 0, Limit: max(limit, 0), CreatedAt: instant(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func legs(from, to *ledger.Account, amount int64) []ledger.Leg {
	return []ledger.Leg{{Account: from.Number, Amount: -amount}, {Account: to.Number, Amount: amount}}
}

func TestAnAccountIsOpenedOnce(t *testing.T) {
	b := ledger.NewBook(ledger.Head{Accounts: 7})
	a := open(t, b, "a", "EUR", -1)
	if a.Number != 8 || b.Head().Accounts != 8 {
		t.Errorf("number %d, head %+v", a.Number, b.Head())
	}
	_, err := b.Open(ledger.Account{ID: "other", Key: a.Key})
	f, _ := fault.As(err)
	if !errors.Is(err, ledger.ErrAccountExists) || f.Metadata()["account_id"] != string(a.ID) {
		t.Errorf("the second: %v", err)
	}
}

func TestWhatDoesNotBalanceIsRefused(t *testing.T) {
	b := ledger.NewBook(ledger.Head{})
	a, c, usd := open(t, b, "a", "EUR", -1), open(t, b, "c", "EUR", -1), open(t, b, "a", "USD", -1)
	before := b.Changes()
	for name, row := range map[string][]ledger.Leg{
		"none":                            nil,
		"one leg":                         {{a.Number, 1}},
		"a sum above zero":                {{a.Number, -1}, {c.Number, 2}},
		"two signs alike":                 {{a.Number, 1}, {c.Number, 1}},
		"nothing moved":                   {{a.Number, 0}, {c.Number, 0}},
		"one account twice":               {{a.Number, 1}, {a.Number, -1}},
		"one account twice of three":      {{a.Number, 1}, {c.Number, -2}, {a.Number, 1}},
		"two currencies":                  {{a.Number, -1}, {usd.Number, 1}},
		"two currencies that sum to zero": {{a.Number, -1}, {c.Number, 2}, {usd.Number, -1}},
		"the least number there is":       {{a.Number, math.MinInt64}, {c.Number, math.MinInt64}},
		"sums out of range":               {{a.Number, math.MaxInt64}, {c.Number, math.MaxInt64}, {usd.Number, 2}},
	} {
		if _, err := b.Move(row, note()); !errors.Is(err, ledger.ErrUnbalanced) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Hold(row, time.Time{}, note()); !errors.Is(err, ledger.ErrUnbalanced) {
			t.Errorf("%s, held: %v", name, err)
		}
	}
	if _, err := b.Move([]ledger.Leg{{a.Number, 1}, {99, -1}}, note()); !errors.Is(err, ledger.ErrAccountNotFound) {
		t.Errorf("an account that is not there: %v", err)
	}
	if after := b.Changes(); len(after.Transfers) != 0 || after.Head != before.Head || a.Balance != 0 {
		t.Errorf("something was written: %+v", after)
	}
}

func TestALimitIsKept(t *testing.T) {
	for name, row := range map[string]struct {
		limit, have, held, take int64
		ok                      bool
	}{
		"all that is there":              {0, 100, 0, 100, true},
		"one more":                       {0, 100, 0, 101, false},
		"into the overdraft":             {50, 100, 0, 150, true},
		"beyond it":                      {50, 100, 0, 151, false},
		"what is held is not to be had":  {0, 100, 40, 61, false},
		"what is not held is":            {0, 100, 40, 60, true},
		"without limit":                  {-1, 0, 0, math.MaxInt64 / 2, true},
		"a limit that cannot be reached": {math.MaxInt64, 100, 0, 1000, true},
	} {
		for _, kind := range []ledger.TransferKind{ledger.Move, ledger.Pending} {
			b := ledger.NewBook(ledger.Head{})
			bank, a, other := open(t, b, "bank", "EUR", -1), open(t, b, "a", "EUR", row.limit), open(t, b, "other", "EUR", -1)
			if row.have > 0 {
				if _, err := b.Move(legs(bank, a, row.have), note()); err != nil {
					t.Fatal(err)
				}
			}
			if row.held > 0 {
				if _, err := b.Hold(legs(a, other, row.held), time.Time{}, note()); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if kind == ledger.Move {
				_, err = b.Move(legs(a, other, row.take), note())
			} else {
				_, err = b.Hold(legs(a, other, row.take), time.Time{}, note())
			}
			if row.ok != (err == nil) || err != nil && !errors.Is(err, ledger.ErrOverdrawn) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if f, ok := fault.As(err); ok && f.Metadata()["available_cents"] != fmt.Sprint(row.limit+row.have-row.held) {
				t.Errorf("%s, %s: %v", name, kind, f.Metadata())
			}
		}
	}
}

func TestABalanceStaysInRange(t *testing.T) {
	b := ledger.NewBook(ledger.Head{})
	a, c := open(t, b, "a", "EUR", -1), open(t, b, "c", "EUR", -1)
	if _, err := b.Move(legs(a, c, math.MaxInt64), note()); err != nil {
		t.Fatal(err)
	}
	head := b.Head()
	for _, take := range []func() error{
		func() error { _, err := b.Move(legs(a, c, 1), note()); return err },
		func() error { _, err := b.Hold(legs(a, c, math.MaxInt64), time.Time{}, note()); return err },
	} {
		if err := take(); !errors.Is(err, ledger.ErrBalanceOverflow) {
			t.Errorf("got %v", err)
		}
	}
	if a.Balance != -math.MaxInt64 || c.Balance != math.MaxInt64 || a.Held != 0 || b.Head() != head {
		t.Errorf("a %+v, c %+v", a, c)
	}
}

func TestWhatIsHeldIsPostedInPartsAndVoided(t *testing.T) {
	b := ledger.NewBook(ledger.Head{})
	a, c := open(t, b, "a", "EUR", 100), open(t, b, "c", "EUR", -1)
	p, err := b.Hold(legs(a, c, 100), instant().Add(time.Hour), note())
	if err != nil || a.Held != 100 || a.Balance != 0 || c.Balance != 0 {
		t.Fatalf("held: %+v, %v", a, err)
	}
	if want := []ledger.Entry{{a.Number, 0, 100, 0, 100}}; !slices.Equal(p.Entries, want) {
		t.Errorf("entries %+v, want %+v", p.Entries, want)
	}
	posted, err := b.Post(p.Number, 30, note())
	if err != nil || a.Held != 70 || a.Balance != -30 || c.Balance != 30 {
		t.Fatalf("posted: %+v, %v", a, err)
	}
	if want := []ledger.Entry{{a.Number, -30, -30, -30, 70}, {c.Number, 30, 0, 30, 0}}; !slices.Equal(posted.Entries, want) {
		t.Errorf("entries %+v, want %+v", posted.Entries, want)
	}
	if _, err := b.Post(p.Number, 71, note()); !errors.Is(err, ledger.ErrAmountExceeded) {
		t.Errorf("too much: %v", err)
	}
	if _, err := b.Reverse(p.Number, note()); !errors.Is(err, ledger.ErrStateConflict) {
		t.Errorf("a pending transfer was reversed: %v", err)
	}
	voided, err := b.Void(p.Number, note())
	if err != nil || a.Held != 0 || a.Balance != -30 || voided.Of != p.Number {
		t.Fatalf("voided: %+v, %v", a, err)
	}
	for _, again := range []func() (*ledger.Transfer, error){
		func() (*ledger.Transfer, error) { return b.Post(p.Number, 1, note()) },
		func() (*ledger.Transfer, error) { return b.Void(p.Number, note()) },
	} {
		if _, err := again(); !errors.Is(err, ledger.ErrStateConflict) {
			t.Errorf("after all is settled: %v", err)
		}
	}
	if _, err := b.Post(99, 1, note()); !errors.Is(err, ledger.ErrTransferNotFound) {
		t.Errorf("a transfer that is not there: %v", err)
	}
}

func TestATransferIsReversedOnce(t *testing.T) {
	first := ledger.NewBook(ledger.Head{})
	a, c := open(t, first, "a", "EUR", -1), open(t, first, "c", "EUR", 0)
	move, err := first.Move(legs(a, c, 40), note())
	if err != nil {
		t.Fatal(err)
	}
	b := ledger.NewBook(first.Head())
	b.LoadAccount(*a)
	b.LoadAccount(*c)
	b.LoadMoved(*move, false)
	back, err := b.Reverse(move.Number, note())
	if err != nil || b.AccountByID(a.ID).Balance != 0 || back.Of != move.Number || back.Kind != ledger.Reversal {
		t.Fatalf("reversed: %+v, %v", back, err)
	}
	if _, err := b.Reverse(move.Number, note()); !errors.Is(err, ledger.ErrStateConflict) {
		t.Errorf("reversed twice: %v", err)
	}
	// What was spent since cannot be taken back.
	spent := ledger.NewBook(first.Head())
	broke := *c
	broke.Balance = 39
	spent.LoadAccount(*a)
	spent.LoadAccount(broke)
	spent.LoadMoved(*move, false)
	if _, err := spent.Reverse(move.Number, note()); !errors.Is(err, ledger.ErrOverdrawn) {
		t.Errorf("taken back from who has not enough: %v", err)
	}
}

// The form of the hash is as old as the first transfer: a change would break every chain there is.
func TestTheHashOfATransferIsTheSameForEver(t *testing.T) {
	b := ledger.NewBook(ledger.Head{})
	a, c := open(t, b, "a", "EUR", -1), open(t, b, "c", "EUR", -1)
	first, err := b.Move(legs(a, c, 150), ledger.Note{Reference: "payment", Metadata: map[string]string{"not": "in it"}, At: instant()})
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Hold(legs(a, c, 7), instant().Add(time.Hour), note())
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		got  ledger.Hash
		want string
	}{
		{first.Hash, "23a817fe34c69cb64312c48c74bff5cfb6b62e74ea3c2ada674d2045ee582a41"},
		{second.Hash, "c471aac3dbc5ca0dc84a2970236ab8f52b085bca945105f5f707b61dca692050"},
	} {
		if got := fmt.Sprintf("%x", row.got); got != row.want {
			t.Errorf("hash %d is %s, want %s", i, got, row.want)
		}
	}
}

func TestVerifyFindsEveryChangeOfATransfer(t *testing.T) {
	b := ledger.NewBook(ledger.Head{})
	a, c := open(t, b, "a", "EUR", -1), open(t, b, "c", "EUR", -1)
	made, err := b.Hold(legs(a, c, 150), instant(), ledger.Note{Reference: "payment", At: instant()})
	if err != nil {
		t.Fatal(err)
	}
	ids := func(n int64) ledger.AccountID { return b.AccountByNumber(n).ID }
	if err := ledger.Verify(ledger.Head{}, made, ids); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(t *ledger.Transfer){
		"number":       func(t *ledger.Transfer) { t.Number++ },
		"kind":         func(t *ledger.Transfer) { t.Kind = ledger.Move },
		"of":           func(t *ledger.Transfer) { t.Of++ },
		"reference":    func(t *ledger.Transfer) { t.Reference = "other" },
		"expiry":       func(t *ledger.Transfer) { t.ExpiresAt = time.Time{} },
		"time":         func(t *ledger.Transfer) { t.At = t.At.Add(time.Microsecond) },
		"a leg":        func(t *ledger.Transfer) { t.Legs[0].Amount++ },
		"its account":  func(t *ledger.Transfer) { t.Legs[0].Account = c.Number },
		"a leg less":   func(t *ledger.Transfer) { t.Legs = t.Legs[:1] },
		"amount":       func(t *ledger.Transfer) { t.Entries[0].Amount++ },
		"held":         func(t *ledger.Transfer) { t.Entries[0].Held++ },
		"balance":      func(t *ledger.Transfer) { t.Entries[0].BalanceAfter++ },
		"held after":   func(t *ledger.Transfer) { t.Entries[0].HeldAfter++ },
		"an entry out": func(t *ledger.Transfer) { t.Entries = nil },
		"hash":         func(t *ledger.Transfer) { t.Hash[0]++ },
	} {
		other := *made
		other.Legs, other.Entries = slices.Clone(made.Legs), slices.Clone(made.Entries)
		change(&other)
		if err := ledger.Verify(ledger.Head{}, &other, ids); err == nil {
			t.Errorf("%s: nothing was found", name)
		}
	}
	if err := ledger.Verify(ledger.Head{Hash: ledger.Hash{1}}, made, ids); err == nil {
		t.Error("the hash before: nothing was found")
	}
}

// model is what the books must say, kept in the plainest way.
type model struct {
	balance, held map[int64]int64
	pending       map[int64]int64 // what is left
	from, to      map[int64]int64 // of pending transfers
}

// Whatever is done, in whatever order, with rollbacks in between: the sums are zero, limits hold, holds are what is
// left of pending transfers, and the chain is whole.
func TestTheBooksKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := ledger.NewBook(ledger.Head{})
		var accounts []*ledger.Account
		for i := range rapid.IntRange(2, 5).Draw(t, "accounts") {
			limit := rapid.SampledFrom([]int64{-1, -1, 0, 50}).Draw(t, "limit")
			accounts = append(accounts, open(t, b, fmt.Sprint("o", i), "EUR", limit))
		}
		m := model{map[int64]int64{}, map[int64]int64{}, map[int64]int64{}, map[int64]int64{}, map[int64]int64{}}
		var marks []ledger.Mark
		var models []model
		var all []int64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(accounts)-1).Draw(t, "from")
			j := (i + rapid.IntRange(1, len(accounts)-1).Draw(t, "to")) % len(accounts)
			from, to := accounts[i], accounts[j]
			amount := rapid.Int64Range(1, 60).Draw(t, "amount")
			of := int64(1)
			if len(all) > 0 {
				of = rapid.SampledFrom(all).Draw(t, "of")
			}
			free := func(a *ledger.Account, take int64) bool {
				return !a.Limited || m.balance[a.Number]-m.held[a.Number]-take >= -a.Limit
			}
			switch rapid.SampledFrom([]string{"move", "hold", "post", "void", "mark", "rollback"}).Draw(t, "step") {
			case "move":
				_, err := b.Move(legs(from, to, amount), note())
				if (err == nil) != free(from, amount) {
					t.Fatalf("move %d from %+v: %v", amount, from, err)
				}
				if err == nil {
					m.balance[from.Number] -= amount
					m.balance[to.Number] += amount
				}
			case "hold":
				p, err := b.Hold(legs(from, to, amount), time.Time{}, note())
				if (err == nil) != free(from, amount) {
					t.Fatalf("hold %d of %+v: %v", amount, from, err)
				}
				if err == nil {
					m.held[from.Number] += amount
					m.pending[p.Number], m.from[p.Number], m.to[p.Number] = amount, from.Number, to.Number
					all = append(all, p.Number)
				}
			case "post":
				_, err := b.Post(of, amount, note())
				if (err == nil) != (amount <= m.pending[of]) {
					t.Fatalf("post %d of transfer %d with %d left: %v", amount, of, m.pending[of], err)
				}
				if err == nil {
					m.pending[of] -= amount
					m.held[m.from[of]] -= amount
					m.balance[m.from[of]] -= amount
					m.balance[m.to[of]] += amount
				}
			case "void":
				_, err := b.Void(of, note())
				if (err == nil) != (m.pending[of] > 0) {
					t.Fatalf("void transfer %d with %d left: %v", of, m.pending[of], err)
				}
				m.held[m.from[of]] -= m.pending[of]
				m.pending[of] = 0
			case "mark":
				marks, models = append(marks, b.Mark()), append(models, m.clone())
			case "rollback":
				if n := len(marks); n > 0 {
					b.Rollback(marks[n-1])
					m = models[n-1]
					marks, models = marks[:n-1], models[:n-1]
				}
			}
			check(t, b, accounts, m)
		}
	})
}

func (m model) clone() model {
	copied := model{map[int64]int64{}, map[int64]int64{}, map[int64]int64{}, map[int64]int64{}, map[int64]int64{}}
	for i, from := range []map[int64]int64{m.balance, m.held, m.pending, m.from, m.to} {
		for k, v := range from {
			[]map[int64]int64{copied.balance, copied.held, copied.pending, copied.from, copied.to}[i][k] = v
		}
	}
	return copied
}

func check(t *rapid.T, b *ledger.Book, accounts []*ledger.Account, m model) {
	t.Helper()
	sum := int64(0)
	for _, a := range accounts {
		if a.Balance != m.balance[a.Number] || a.Held != m.held[a.Number] {
			t.Fatalf("account %d has %d and holds %d, the model %d and %d", a.Number, a.Balance, a.Held, m.balance[a.Number], m.held[a.Number])
		}
		sum += a.Balance
	}
	if sum != 0 {
		t.Fatalf("the balances sum to %d", sum)
	}
	changes := b.Changes()
	var head ledger.Head
	balance, held := map[int64]int64{}, map[int64]int64{}
	for _, transfer := range changes.Transfers {
		if err := ledger.Verify(head, transfer, func(n int64) ledger.AccountID { return b.AccountByNumber(n).ID }); err != nil {
			t.Fatal(err)
		}
		for _, e := range transfer.Entries {
			balance[e.Account] += e.Amount
			held[e.Account] += e.Held
			if e.BalanceAfter != balance[e.Account] || e.HeldAfter != held[e.Account] {
				t.Fatalf("transfer %d: an entry says %+v, the sums are %d and %d", transfer.Number, e, balance[e.Account], held[e.Account])
			}
		}
		head = ledger.Head{Transfers: transfer.Number, Hash: transfer.Hash}
	}
	if changes.Head.Transfers != head.Transfers || changes.Head.Hash != head.Hash {
		t.Fatalf("the head is %+v, the last transfer %+v", changes.Head, head)
	}
	for _, p := range changes.Pending {
		if p.Remaining != m.pending[p.Number] {
			t.Fatalf("%d is left of transfer %d, the model has %d", p.Remaining, p.Number, m.pending[p.Number])
		}
	}
}
