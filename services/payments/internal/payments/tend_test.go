package payments_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// hanging is a processor behind a network, and a store, that do not answer for some until whoever asks gives up.
type hanging struct {
	payments.Store

	mu      sync.Mutex
	down    bool                          // the processor
	hangs   func(payments.ID, int64) bool // by payment, or by transfer
	waiting int
	most    int // who waited at once
	asked   int
}

func (h *hanging) wait(ctx context.Context, id payments.ID, transfer int64) error {
	h.mu.Lock()
	hangs := h.hangs(id, transfer)
	h.asked++
	h.waiting++
	h.most = max(h.most, h.waiting)
	h.mu.Unlock()
	if hangs {
		<-ctx.Done()
	}
	h.mu.Lock()
	h.waiting--
	h.mu.Unlock()
	return ctx.Err()
}

func (h *hanging) Immediate(payments.Operation) bool { return false }

func (h *hanging) Process(ctx context.Context, op payments.Operation) (payments.Decline, error) {
	if h.down {
		return payments.NotDeclined, errors.New("unreachable")
	}
	return payments.NotDeclined, h.wait(ctx, op.Payment, 0)
}

func (h *hanging) Do(ctx context.Context, c payments.Command) (payments.Outcome, error) {
	if len(c.Needs.Transfers) > 0 {
		if err := h.wait(ctx, "", c.Needs.Transfers[0]); err != nil {
			return payments.Outcome{}, err
		}
	}
	return h.Store.Do(ctx, c)
}

// newHanging returns a world with such a store and processor, of which nothing hangs.
func newHanging(t *testing.T) (*world, *hanging) {
	t.Helper()
	w := newWorld(t)
	h := &hanging{Store: w.store, hangs: func(payments.ID, int64) bool { return false }}
	made := 0
	var err error
	w.Service, err = payments.NewService(payments.Deps{
		Store: h, Customers: w.customers, Processor: h, Clock: w.clock, AuthorizationExpiry: week,
		NewID: func() string { made++; return fmt.Sprint("p-", made) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, h
}

// open makes n payments of which the processor has not said, each later than the one before, and returns them.
func (h *hanging) open(t *testing.T, w *world, c payments.Charge, key string, n int) map[payments.ID]bool {
	t.Helper()
	h.down = true
	defer func() { h.down = false }()
	made := make(map[payments.ID]bool)
	for i := range n {
		w.clock.Advance(time.Millisecond)
		if _, err := w.Charge(t.Context(), "user:ann", fmt.Sprint(key, i), c); !errors.Is(err, payments.ErrProcessorUnavailable) {
			t.Fatal(err)
		}
		page, err := w.List(t.Context(), payments.Query{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		made[page.Payments[0].ID] = true
	}
	return made
}

// In a recovery each question has its time, many are asked at once, and those that keep failing rest for longer and
// longer: three hundred that hang do not keep one behind them waiting, and later they cost it nothing.
func TestThreeHundredIntentsThatHangDoNotHoldUpTheOneBehindThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, h := newHanging(t)
		hung := h.open(t, w, charge(), "hung", 300)
		h.open(t, w, charge(), "behind", 1)
		h.hangs = func(id payments.ID, _ int64) bool { return hung[id] }
		resolved := func(key string) {
			t.Helper()
			if o, err := w.Charge(t.Context(), "user:ann", key, charge()); err != nil || o.Payment.State != payments.StateCaptured {
				t.Errorf("%s: %+v, %v", key, o, err)
			}
		}
		w.clock.Advance(11 * time.Second)
		began := time.Now()
		n, err := w.Recover(t.Context())
		if n != 1 || !errors.Is(err, context.DeadlineExceeded) || len(err.Error()) > 2000 {
			t.Errorf("recovered %d, %v", n, err)
		}
		if took := time.Since(began); took > 50*time.Second || h.most > 64 {
			t.Errorf("it took %s, with %d at once", took, h.most)
		}
		resolved("behind0")

		h.open(t, w, charge(), "later", 1)
		w.clock.Advance(11 * time.Second)
		for round := range 10 { // the hung ones are asked about less and less
			if round > 0 {
				h.asked = 0
			}
			_, _ = w.Recover(t.Context()) // that they fail was looked at above
			resolved("later0")
			began = time.Now()
			if n, err := w.Recover(t.Context()); n != 0 || err != nil || time.Since(began) > 0 {
				t.Errorf("while they rest: %d, %v, after %s", n, err, time.Since(began))
			}
			w.clock.Advance(time.Minute)
		}
		if h.asked != 300 {
			t.Errorf("they were asked about %d times in the last round", h.asked)
		}

		h.hangs = func(payments.ID, int64) bool { return false }
		if n, err := w.Recover(t.Context()); n != 300 || err != nil {
			t.Errorf("once they answer: %d, %v", n, err)
		}
		if left, err := w.store.Intents(t.Context(), w.clock.Now().Add(time.Hour), nil, 10); err != nil || len(left) != 0 {
			t.Errorf("left are %v, %v", left, err)
		}
	})
}

func TestAnIntentThatCannotBeResolvedRestsTwiceAsLongEachTimeUpToAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.processor.remote, w.processor.fail = true, errors.New("unreachable")
	_, _ = w.Charge(t.Context(), "user:ann", "k", charge())
	w.clock.Advance(11 * time.Second)
	var asked []int // in which second
	for second := range 250 {
		before := w.processor.asked
		_, _ = w.Recover(t.Context())
		if w.processor.asked > before {
			asked = append(asked, second)
		}
		w.clock.Advance(time.Second)
	}
	if want := []int{0, 2, 6, 14, 30, 62, 122, 182, 242}; !slices.Equal(asked, want) {
		t.Errorf("it is asked about in the seconds %v, want %v", asked, want)
	}
}

// What cannot be released now, because a processor is being asked, or takes its whole time in vain, does not keep what
// is behind it.
func TestThreeHundredHoldsThatCannotBeReleasedDoNotHoldUpTheOneBehindThem(t *testing.T) {
	t.Parallel()
	hold := func(t *testing.T, w *world, key string, expires time.Duration) int64 {
		t.Helper()
		accounts, err := w.store.Accounts(t.Context(), "", 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		o, err := w.Transfer(t.Context(), "service:x", key, []payments.TransferOperation{{Kind: ledger.Pending, ExpiresIn: expires, Legs: []payments.TransferLeg{
			{Account: accounts[0].ID, Amount: -1}, {Account: accounts[1].ID, Amount: 1},
		}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return o.Transfers[0].Number
	}
	for name, prepare := range map[string]func(*testing.T, *world, *hanging) time.Duration{
		"payments that are busy": func(t *testing.T, w *world, h *hanging) time.Duration {
			h.open(t, w, authorize(), "busy", 300)
			return 0
		},
		"holds of which none comes through": func(t *testing.T, w *world, h *hanging) time.Duration {
			hung := map[int64]bool{}
			for i := range 300 {
				hung[hold(t, w, fmt.Sprint("hung", i), time.Hour)] = true
			}
			h.hangs = func(_ payments.ID, transfer int64) bool { return hung[transfer] }
			return 50 * time.Second
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, h := newHanging(t)
				must(t)(w.Charge(t.Context(), "user:ann", "first", charge())) // so that there are accounts
				most := prepare(t, w, h)
				behind := hold(t, w, "behind", week+time.Hour)
				w.clock.Advance(2 * week)
				began := time.Now()
				n, err := w.Release(t.Context())
				if n != 1 || most == 0 && err != nil || most > 0 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("released %d, %v", n, err)
				}
				if took := time.Since(began); took > most || h.most > 64 {
					t.Errorf("it took %s, with %d at once", took, h.most)
				}
				left, err := w.store.Expired(t.Context(), w.clock.Now(), nil, 1000)
				if err != nil || len(left) != 300 || left[299].Number == behind {
					t.Errorf("left are %d, %v", len(left), err)
				}
			})
		})
	}
}

// outrun is a store that finds what was over at first, as for somebody who looked before another released it.
type outrun struct {
	payments.Store
	found []ledger.Outstanding
}

func (o *outrun) Expired(ctx context.Context, now time.Time, after *ledger.Outstanding, limit int) (page []ledger.Outstanding, err error) {
	if o.found == nil {
		o.found, err = o.Store.Expired(ctx, now, after, limit)
	}
	return o.found, err
}

func TestWhatAnotherHasReleasedMeanwhileIsNoProblem(t *testing.T) {
	t.Parallel()
	w, h := newHanging(t)
	o := &outrun{Store: h.Store}
	h.Store = o
	must(t)(w.Charge(t.Context(), "user:ann", "payment", authorize()))
	accounts, err := w.store.Accounts(t.Context(), "", 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Transfer(t.Context(), "service:x", "transfer", []payments.TransferOperation{{Kind: ledger.Pending, ExpiresIn: time.Hour, Legs: []payments.TransferLeg{
		{Account: accounts[0].ID, Amount: -1}, {Account: accounts[1].ID, Amount: 1},
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(2 * week)
	for _, want := range []int{2, 0} {
		if n, err := w.Release(t.Context()); n != want || err != nil {
			t.Errorf("released %d, %v; want %d", n, err, want)
		}
	}
	if len(o.found) != 2 {
		t.Errorf("%d were found, so this shows nothing", len(o.found))
	}
}
