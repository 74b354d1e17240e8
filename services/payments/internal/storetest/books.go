package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

func accounts(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", 5)).Account, do(t, s, open("b", -1)).Account
	if a.Number != 1 || !a.Limited || a.Limit != 5 || b.Limited || a.CreatedAt.IsZero() {
		t.Errorf("opened %+v, %+v", a, b)
	}
	_, err := s.Do(limit(t), func() payments.Command { c := open("a", 5); c.Claim = claim("open", "again", ""); return c }())
	wantError(t, err, ledger.ErrAccountExists)
	got, err := s.Account(limit(t), a.ID, time.Time{})
	wantError(t, err, nil)
	wantEqual(t, got, a)
	var moved []ledger.Transfer
	for i := range 5 {
		moved = append(moved, do(t, s, transfer(fmt.Sprint(i), b.ID, a.ID, 10, 0)).Transfers[0])
	}
	held := do(t, s, transfer("hold", b.ID, a.ID, 4, time.Hour)).Transfers[0]
	for i, c := range []struct {
		id            ledger.AccountID
		at            time.Time
		balance, held int64
	}{
		{a.ID, time.Time{}, 50, 0},
		{b.ID, time.Time{}, -50, 4},
		{a.ID, held.At.Add(time.Hour), 50, 0},
		{b.ID, held.At.Add(time.Hour), -50, 4},
		{a.ID, a.CreatedAt, 0, 0},
		{a.ID, moved[1].At, 20, 0},
		{b.ID, moved[4].At, -50, 0},
	} {
		got, err := s.Account(limit(t), c.id, c.at)
		if err != nil || got.Balance != c.balance || got.Held != c.held {
			// Transfers of one moment cannot be told apart by it.
			if !c.at.IsZero() && (moved[1].At.Equal(moved[2].At) || moved[4].At.Equal(held.At)) {
				continue
			}
			t.Errorf("row %d: %+v, %v", i, got, err)
		}
	}
	_, err = s.Account(limit(t), a.ID, a.CreatedAt.Add(-time.Microsecond))
	wantError(t, err, ledger.ErrAccountNotFound)
	all, err := s.Accounts(limit(t), "", 0, 10)
	if err != nil || len(all) != 2 || all[0].ID != a.ID {
		t.Errorf("all: %+v, %v", all, err)
	}
	rest, err := s.Accounts(limit(t), "", 1, 10)
	if err != nil || len(rest) != 1 || rest[0].ID != b.ID {
		t.Errorf("after the first: %+v, %v", rest, err)
	}
	if none, err := s.Accounts(limit(t), "c", 0, 10); err != nil || len(none) != 0 {
		t.Errorf("of nobody: %+v, %v", none, err)
	}
	names, err := s.AccountIDs(limit(t), []int64{2, 1, 2, 99})
	wantError(t, err, nil)
	wantEqual(t, names, map[int64]ledger.AccountID{1: a.ID, 2: b.ID})
	sound(t, s)
}

func transfers(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", -1)).Account, do(t, s, open("b", -1)).Account
	moved := do(t, s, transfer("t", a.ID, b.ID, 7, 0)).Transfers[0]
	held := do(t, s, transfer("h", b.ID, a.ID, 3, time.Hour)).Transfers[0]
	for _, want := range []ledger.Transfer{moved, held} {
		got, ids, err := s.Transfer(limit(t), want.Number)
		wantError(t, err, nil)
		wantEqual(t, got, want)
		wantEqual(t, ids, map[int64]ledger.AccountID{a.Number: a.ID, b.Number: b.ID})
	}
	entries, err := s.Entries(limit(t), b.ID, 0, 10)
	wantError(t, err, nil)
	wantEqual(t, entries, []payments.AccountEntry{
		{Entry: ledger.Entry{Account: 2, Held: 3, BalanceAfter: 7, HeldAfter: 3}, Transfer: 2, Kind: ledger.Pending, At: held.At},
		{Entry: ledger.Entry{Account: 2, Amount: 7, BalanceAfter: 7}, Transfer: 1, Kind: ledger.Move, At: moved.At},
	})
	older, err := s.Entries(limit(t), b.ID, 2, 10)
	if err != nil || len(older) != 1 || older[0].Transfer != 1 {
		t.Errorf("before the second: %+v, %v", older, err)
	}
	one, err := s.Entries(limit(t), b.ID, 0, 1)
	if err != nil || len(one) != 1 || one[0].Transfer != 2 {
		t.Errorf("one: %+v, %v", one, err)
	}
	sound(t, s)
}

func reversal(t *testing.T, db Database) {
	s := db.Open(t)
	a, b := do(t, s, open("a", -1)).Account, do(t, s, open("b", -1)).Account
	moved := do(t, s, transfer("t", a.ID, b.ID, 7, 0)).Transfers[0]
	reverse := func(key string) payments.Command {
		return payments.Command{
			Claim: claim("transfer", key, "reverse"), Needs: payments.Needs{Transfers: []int64{moved.Number}},
			Run: func(w *payments.Work) (payments.Outcome, error) {
				t, err := w.Book.Reverse(moved.Number, ledger.Note{At: w.Now()})
				if err != nil {
					return payments.Outcome{}, err
				}
				return payments.Outcome{Transfers: []ledger.Transfer{*t}}, nil
			},
		}
	}
	do(t, s, reverse("r"))
	_, err := s.Do(limit(t), reverse("again"))
	wantError(t, err, ledger.ErrStateConflict)
	if balance, _ := has(t, s, a.Key); balance != 0 {
		t.Errorf("a has %d", balance)
	}
	sound(t, s)
}

func trialBalance(t *testing.T, db Database) {
	s := db.Open(t)
	empty, err := s.TrialBalance(limit(t))
	if err != nil || len(empty.Rows) != 0 || empty.Head.Transfers != 0 {
		t.Errorf("empty: %+v, %v", empty, err)
	}
	const most = 1<<63 - 1
	for i := range 3 { // sums that pass an int64
		a, b := do(t, s, open(fmt.Sprint("a", i), -1)).Account, do(t, s, open(fmt.Sprint("b", i), -1)).Account
		do(t, s, transfer(fmt.Sprint(i), a.ID, b.ID, most, 0))
	}
	charged := do(t, s, charge("k", ann, 150))
	got, err := s.TrialBalance(limit(t))
	wantError(t, err, nil)
	wantEqual(t, got.Rows, []payments.TrialBalanceRow{{Currency: "EUR", Credit: "27670116110564327571", Debit: "27670116110564327571", Accounts: 8}})
	if got.Head.Transfers != 4 || got.Head.Hash == (ledger.Hash{}) || charged.Payment.Number != 1 {
		t.Errorf("the head is %+v", got.Head)
	}
	sound(t, s)
}

func pages(t *testing.T, db Database) {
	s := db.Open(t)
	var want []payments.ID
	for i := range 25 {
		customer := ann
		if i%5 == 0 {
			customer = bob
		}
		p := do(t, s, charge(fmt.Sprint(i), customer, 150)).Payment
		if customer == ann {
			want = append(want, p.ID)
		}
	}
	slices.Reverse(want)
	for size := 1; size <= 7; size++ {
		var got []payments.ID
		for query := (payments.Query{Customer: ann, Limit: size}); ; {
			page, err := s.Payments(limit(t), query)
			if err != nil || len(page) > size {
				t.Fatalf("%d payments, %v", len(page), err)
			}
			if len(page) == 0 {
				break
			}
			for _, p := range page {
				got = append(got, p.ID)
			}
			query.Before = page[len(page)-1].Number
			do(t, s, charge(fmt.Sprint("new", size, len(got)), ann, 150)) // a list does not shift
		}
		if !slices.Equal(got[max(0, len(got)-len(want)):], want) {
			t.Errorf("pages of %d: %v, want %v at the end", size, got, want)
		}
	}
}

func filters(t *testing.T, db Database) {
	s := db.Open(t)
	small := do(t, s, charge("a", ann, 50)).Payment
	great := do(t, s, charge("b", ann, 500)).Payment
	held := do(t, s, authorize("c", ann, 100)).Payment
	for name, c := range map[string]struct {
		where []payments.Condition
		want  []payments.ID
	}{
		"state":              {[]payments.Condition{{Field: payments.FieldState, Operator: payments.Equal, Value: payments.StateAuthorized}}, []payments.ID{held.ID}},
		"another state":      {[]payments.Condition{{Field: payments.FieldState, Operator: payments.NotEqual, Value: payments.StateAuthorized}}, []payments.ID{great.ID, small.ID}},
		"order":              {[]payments.Condition{{Field: payments.FieldOrder, Operator: payments.Equal, Value: payments.OrderID("X2")}}, []payments.ID{held.ID}},
		"currency":           {[]payments.Condition{{Field: payments.FieldCurrency, Operator: payments.Equal, Value: payments.Currency("USD")}}, nil},
		"less":               {[]payments.Condition{{Field: payments.FieldAmount, Operator: payments.Less, Value: int64(100)}}, []payments.ID{small.ID}},
		"less or equal":      {[]payments.Condition{{Field: payments.FieldAmount, Operator: payments.LessOrEqual, Value: int64(100)}}, []payments.ID{held.ID, small.ID}},
		"between":            {[]payments.Condition{{Field: payments.FieldAmount, Operator: payments.Greater, Value: int64(50)}, {Field: payments.FieldAmount, Operator: payments.GreaterOrEqual, Value: int64(500)}}, []payments.ID{great.ID}},
		"since":              {[]payments.Condition{{Field: payments.FieldCreatedAt, Operator: payments.GreaterOrEqual, Value: small.CreatedAt}}, []payments.ID{held.ID, great.ID, small.ID}},
		"after all":          {[]payments.Condition{{Field: payments.FieldCreatedAt, Operator: payments.Greater, Value: held.CreatedAt}}, nil},
		"text with a quote":  {[]payments.Condition{{Field: payments.FieldOrder, Operator: payments.Equal, Value: payments.OrderID(`'; DROP TABLE payments; --`)}}, nil},
		"text with wildcard": {[]payments.Condition{{Field: payments.FieldOrder, Operator: payments.Equal, Value: payments.OrderID(`%`)}}, nil},
	} {
		got, err := s.Payments(limit(t), payments.Query{Where: c.where, Limit: 10})
		var ids []payments.ID
		for _, p := range got {
			ids = append(ids, p.ID)
		}
		if err != nil || !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, ids, err, c.want)
		}
	}
	for name, c := range map[string]payments.Condition{
		"a field":    {Field: "customer_id; --", Operator: payments.Equal, Value: payments.OrderID("x")},
		"a value":    {Field: payments.FieldOrder, Operator: payments.Equal, Value: 3.5},
		"a operator": {Field: payments.FieldOrder, Operator: "= '' OR 1 =", Value: payments.OrderID("x")},
	} {
		if _, err := s.Payments(limit(t), payments.Query{Where: []payments.Condition{c}, Limit: 10}); err == nil {
			t.Errorf("%s that there is not was taken", name)
		}
	}
}

func textsAreKept(t *testing.T, db Database) {
	s := db.Open(t)
	for i, text := range []string{"", " ", "ünï\u0301 \U0001f4b6", `'";--%_\`, "a\nb\tc", "null", "{}"} {
		c := chargeOf(fmt.Sprint(text, i), payments.Payment{
			ID: paymentID(), Order: payments.OrderID(text), Customer: ann, Amount: 150, Currency: "EUR", Metadata: map[string]string{"k" + text: text},
		})
		c.Claim.Caller = text
		p := do(t, s, c).Payment
		got, err := s.Payment(limit(t), p.ID)
		wantError(t, err, nil)
		if got.Order != payments.OrderID(text) || got.Metadata["k"+text] != text {
			t.Errorf("%q is kept as %q, %q", text, got.Order, got.Metadata)
		}
	}
	sound(t, s)
}

func survivesReopening(t *testing.T, db Database) {
	s := db.Open(t)
	p := do(t, s, charge("k", ann, 150)).Payment
	key := s.PageKey()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	s = db.Open(t)
	if again := do(t, s, charge("k", ann, 150)); !again.Replayed {
		t.Error("it was charged again")
	}
	got, err := s.Payment(limit(t), p.ID)
	wantError(t, err, nil)
	wantEqual(t, got, p)
	wantEqual(t, s.PageKey(), key)
	if next := do(t, s, charge("l", ann, 150)).Payment; next.Number != 2 {
		t.Errorf("the next has number %d", next.Number)
	}
	sound(t, s)
}
