package storetest

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// many captures n payments of ann and bob in turn, and returns them newest first.
func many(t *testing.T, s Store, n int) []payments.Payment {
	t.Helper()
	var all []payments.Payment
	for i := range n {
		p := payment([]payments.CustomerID{ann, bob}[i%2], i, 100)
		add(t, s, p)
		all = append(all, p)
	}
	slices.Reverse(all)
	return all
}

// walk reads a list in pages.
func walk(t *testing.T, s Store, query payments.Query) []payments.Payment {
	t.Helper()
	var all []payments.Payment
	for {
		page, err := s.List(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > query.Limit {
			t.Fatalf("a page of %d, the limit is %d", len(page), query.Limit)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		query.After = page[len(page)-1].ID
	}
}

func pages(t *testing.T, db Database) {
	s := open(t, db)
	want := many(t, s, 7)
	for _, limit := range []int{1, 2, 3, 7, 8} {
		wantPayments(t, walk(t, s, payments.Query{Limit: limit}), want...)
	}
}

func listOfOne(t *testing.T, db Database) {
	s := open(t, db)
	all := many(t, s, 9)
	for _, customer := range []payments.CustomerID{ann, bob} {
		want := slices.DeleteFunc(slices.Clone(all), func(p payments.Payment) bool { return p.Customer != customer })
		wantPayments(t, walk(t, s, payments.Query{Customer: customer, Limit: 2}), want...)
	}
	wantPayments(t, walk(t, s, payments.Query{Customer: "nobody", Limit: 2}))
}

func listAfterMissing(t *testing.T, db Database) {
	s := open(t, db)
	many(t, s, 2)
	_, err := s.List(t.Context(), payments.Query{After: payment(ann, 77, 1).ID, Limit: 2})
	if !errors.Is(err, payments.ErrPageTokenInvalid) {
		t.Errorf("List: %v", err)
	}
}

func listWhileAdding(t *testing.T, db Database) {
	s := open(t, db)
	want := many(t, s, 4)
	first, err := s.List(t.Context(), payments.Query{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, payment(ann, 100, 100))
	add(t, s, payment(bob, 101, 100))
	rest, err := s.List(t.Context(), payments.Query{Limit: 10, After: first[1].ID})
	if err != nil {
		t.Fatal(err)
	}
	wantPayments(t, append(first, rest...), want...)
}

func textsAreKept(t *testing.T, db Database) {
	s := open(t, db)
	p := payment(ann, 1, 100)
	p.Order = "Bestellung \u00dc \u2028 '\"; -- \U0001f4b6 <&>"
	p.Metadata = map[string]string{"schl\u00fcssel \"'": "a\nb\tc\\ \u2029 </script>", "leer": ""}
	add(t, s, p)
	got, err := s.Get(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, want %+v", got, p)
	}
}

func survivesReopening(t *testing.T, db Database) {
	s := db.Open(t)
	want := many(t, s, 5)
	key := s.PageKey()
	if len(key) < 16 {
		t.Errorf("a page key of %d bytes", len(key))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, db)
	got := walk(t, s, payments.Query{Limit: 3})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	r, err := s.Capture(t.Context(), claimOf(want[0]), posting(payment(ann, 50, 100)))
	if err != nil || !reflect.DeepEqual(r, payments.Receipt{Payment: want[0], Replayed: true}) {
		t.Errorf("the key of a payment before = %+v, %v", r, err)
	}
	if !slices.Equal(s.PageKey(), key) {
		t.Error("the page key is another one")
	}
	add(t, s, payment(bob, 51, 100)) // on the accounts that were there
	verify(t, s)
}
