package storetest

import (
	"errors"
	"reflect"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
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

// next returns the next transaction and its token.
func next(t *testing.T, feed payments.Feed) (payments.Transaction, string) {
	t.Helper()
	got, token, err := feed.Next(limit(t))
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return got, token
}

// wantCharged takes the next transaction and checks that it says that p was charged. It returns the token.
func wantCharged(t *testing.T, feed payments.Feed, p payments.Payment) string {
	t.Helper()
	got, token := next(t, feed)
	want := payments.Transaction{Type: payments.TransactionCharged, Payment: p, At: p.CreatedAt}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	return token
}

// wantQuiet checks that nothing more comes by capturing a last payment, which must be the next.
func wantQuiet(t *testing.T, s Store, feed payments.Feed, last payments.Payment) {
	t.Helper()
	add(t, s, last)
	wantCharged(t, feed, last)
}

func watchOfOne(t *testing.T, db Database) {
	s := open(t, db)
	add(t, s, payment(ann, 1, 100)) // before the watch
	feed := follow(t, s, ann, "")
	add(t, s, payment(bob, 2, 100))
	second := payment(ann, 3, 300)
	second.Metadata = map[string]string{"cart": "7"}
	add(t, s, second)
	add(t, s, payment(bob, 4, 100))
	third := payment(ann, 5, 500)
	add(t, s, third)
	wantCharged(t, feed, second)
	wantCharged(t, feed, third)
}

func watchResumes(t *testing.T, db Database) {
	for _, customer := range []payments.CustomerID{"", ann} {
		name := "of all"
		if customer != "" {
			name = "of one customer"
		}
		base := 0x100 * (1 + len(customer))
		t.Run(name, func(t *testing.T) {
			s := db.Open(t)
			feed := follow(t, s, customer, "")
			first, second, third := payment(ann, base+1, 100), payment(ann, base+2, 200), payment(ann, base+3, 300)
			add(t, s, first)
			add(t, s, second)
			token := wantCharged(t, feed, first)
			feed.Close()
			add(t, s, third)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}

			s = db.Open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			feed = follow(t, s, customer, token)
			wantCharged(t, feed, second)
			last := wantCharged(t, feed, third)
			if got := feed.Position(); got != last {
				t.Errorf("the position is %q, the last token %q", got, last)
			}
			wantQuiet(t, s, feed, payment(ann, base+4, 400))
			verify(t, s)
		})
	}
}

func watchUnderLoad(t *testing.T, db Database) {
	const n = 300
	s := open(t, db)
	feed := follow(t, s, "", "")
	done := make(chan error, 1)
	go func() {
		errs := make([]error, n)
		together(n, func(i int) {
			p := payment(ann, i, 100)
			_, errs[i] = s.Capture(t.Context(), claimOf(p), posting(p))
		})
		done <- errors.Join(errs...)
	}()
	seen := make(map[payments.ID]bool, n)
	var token string
	for len(seen) < n {
		// Every seventh one comes over a watch that was resumed.
		if len(seen)%7 == 6 {
			feed.Close()
			feed = follow(t, s, "", token)
		}
		var got payments.Transaction
		got, token = next(t, feed)
		if seen[got.Payment.ID] {
			t.Fatalf("payment %s came twice", got.Payment.ID)
		}
		seen[got.Payment.ID] = true
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantQuiet(t, s, feed, payment(bob, n, 100))
	verify(t, s)
}

func foreignToken(t *testing.T, db Database) {
	s := open(t, db)
	add(t, s, payment(ann, 1, 100))
	all := follow(t, s, "", "").Position()
	own := follow(t, s, ann, "").Position()
	for name, c := range map[string]struct {
		customer payments.CustomerID
		token    string
	}{
		"a token of all, for one customer":   {ann, all},
		"a token of one customer, for all":   {"", own},
		"a token of another customer":        {bob, own},
		"a token that was made up":           {ann, "nonsense"},
		"a token that has lost its last one": {ann, own[:len(own)-1]},
	} {
		if feed, err := s.Watch(t.Context(), c.customer, c.token); !errors.Is(err, errToken) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				feed.Close()
			}
		}
	}
}

func refusedHasNoEvent(t *testing.T, db Database) {
	s := open(t, db)
	feed := follow(t, s, "", "")
	first := payment(ann, 1, 100)
	if _, err := s.Capture(t.Context(), claim("k", "a"), posting(first)); err != nil {
		t.Fatal(err)
	}
	wantCharged(t, feed, first)
	if _, err := s.Capture(t.Context(), claim("k", "b"), posting(payment(ann, 2, 200))); err == nil {
		t.Fatal("other content was captured")
	}
	if _, err := s.Capture(t.Context(), claim("k", "a"), posting(payment(ann, 3, 100))); err != nil {
		t.Fatal(err)
	}
	wantQuiet(t, s, feed, payment(ann, 4, 100))
}
