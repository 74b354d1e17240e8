package storetest

import (
	"fmt"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// errToken is what a watch answers to a token that is not its own.
var errToken = fault.New(fault.InvalidArgument, "RESUME_TOKEN_INVALID", "")

// follow begins a watch and ends it with the test.
func follow(t *testing.T, s Store, customer payments.CustomerID, token string) payments.Feed {
	t.Helper()
	feed, err := s.Watch(t.Context(), customer, token)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	t.Cleanup(feed.Close)
	return feed
}

// wantNext takes the next transaction and returns its token.
func wantNext(t *testing.T, feed payments.Feed, what payments.TransactionType, amount int64, p payments.Payment) string {
	t.Helper()
	got, token, err := feed.Next(limit(t))
	wantError(t, err, nil)
	wantEqual(t, got, payments.Transaction{Type: what, Amount: amount, Payment: p, At: p.UpdatedAt})
	return token
}

func watchOfOne(t *testing.T, db Database) {
	s := db.Open(t)
	do(t, s, charge("before", ann, 150))
	feed := follow(t, s, ann, "")
	p := do(t, s, charge("k", ann, 150)).Payment
	do(t, s, charge("other", bob, 150))
	held := do(t, s, authorize("h", ann, 100)).Payment
	back := do(t, s, refund("r", p.ID, 50)).Payment
	wantNext(t, feed, payments.TransactionCharged, 150, p)
	wantNext(t, feed, payments.TransactionAuthorized, 100, held)
	wantNext(t, feed, payments.TransactionRefunded, 50, back)
}

func watchResumes(t *testing.T, db Database) {
	s := db.Open(t)
	feed := follow(t, s, ann, "")
	first := do(t, s, charge("1", ann, 150)).Payment
	second := do(t, s, charge("2", ann, 150)).Payment
	token := wantNext(t, feed, payments.TransactionCharged, 150, first)
	feed.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = db.Open(t)
	feed = follow(t, s, ann, token)
	third := do(t, s, charge("3", ann, 150)).Payment
	wantNext(t, feed, payments.TransactionCharged, 150, second)
	wantNext(t, feed, payments.TransactionCharged, 150, third)
}

func watchUnderLoad(t *testing.T, db Database) {
	const n = 300
	s := db.Open(t)
	feed := follow(t, s, "", "")
	made := make(chan payments.ID, n)
	go atOnce(n, func(i int) {
		o, err := s.Do(limit(t), charge(fmt.Sprint(i), ann, 150))
		if err != nil {
			t.Error(err)
		}
		made <- o.Payment.ID
	})
	told := map[payments.ID]int{}
	last := int64(0)
	for range n {
		got, _, err := feed.Next(limit(t))
		if err != nil {
			t.Fatal(err)
		}
		told[got.Payment.ID]++
		if got.Payment.Number <= last {
			t.Errorf("payment %d is told of after %d", got.Payment.Number, last)
		}
		last = got.Payment.Number
	}
	for range n {
		if id := <-made; told[id] != 1 {
			t.Errorf("payment %s was told of %d times", id, told[id])
		}
	}
}

func foreignToken(t *testing.T, db Database) {
	s := db.Open(t)
	feed := follow(t, s, ann, "")
	token := wantNextOf(t, s, feed)
	for name, c := range map[string]struct {
		customer payments.CustomerID
		token    string
	}{
		"another customer's": {bob, token}, "that of all": {"", token}, "none": {ann, "none"}, "a part": {ann, token[:len(token)-1]},
	} {
		if _, err := s.Watch(t.Context(), c.customer, c.token); err == nil {
			t.Errorf("%s was taken", name)
		} else {
			wantError(t, err, errToken)
		}
	}
}

func wantNextOf(t *testing.T, s Store, feed payments.Feed) string {
	return wantNext(t, feed, payments.TransactionCharged, 150, do(t, s, charge("k", ann, 150)).Payment)
}

func refusedHasNoEvent(t *testing.T, db Database) {
	s := db.Open(t)
	feed := follow(t, s, "", "")
	p := do(t, s, charge("k", ann, 150)).Payment
	do(t, s, charge("k", ann, 150))
	_, err := s.Do(limit(t), refund("r", p.ID, 151))
	wantError(t, err, ledger.ErrAmountExceeded)
	last := do(t, s, charge("l", ann, 150)).Payment
	wantNext(t, feed, payments.TransactionCharged, 150, p)
	wantNext(t, feed, payments.TransactionCharged, 150, last)
}
