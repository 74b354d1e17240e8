package payments_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// What a processor was asked for and has not answered is asked again with the same key, and whoever comes with the key
// of the caller is told to wait until then, and gets what came of it.
func TestWhatAProcessorDidNotAnswerIsAskedAgain(t *testing.T) {
	t.Parallel()
	unreachable := errors.New("unreachable")
	for name, step := range map[string]struct {
		prepare func(*testing.T, *world) payments.ID
		do      func(context.Context, *world, payments.ID) (payments.Outcome, error)
		want    payments.State
		held    int64 // meanwhile
		took    int64 // in the end
	}{
		"charge": {
			do: func(ctx context.Context, w *world, _ payments.ID) (payments.Outcome, error) {
				return w.Charge(ctx, "user:ann", "again", charge())
			},
			want: payments.StateCaptured, held: 150, took: 150,
		},
		"authorize": {
			do: func(ctx context.Context, w *world, _ payments.ID) (payments.Outcome, error) {
				return w.Charge(ctx, "user:ann", "again", authorize())
			},
			want: payments.StateAuthorized, held: 150,
		},
		"capture": {
			prepare: authorized,
			do: func(ctx context.Context, w *world, id payments.ID) (payments.Outcome, error) {
				return w.Capture(ctx, "user:ann", "again", payments.Everyone(), id, 100, true)
			},
			want: payments.StateCaptured, held: 150, took: 100,
		},
		"cancel": {
			prepare: authorized,
			do: func(ctx context.Context, w *world, id payments.ID) (payments.Outcome, error) {
				return w.Cancel(ctx, "user:ann", "again", payments.Everyone(), id)
			},
			want: payments.StateCanceled, held: 150,
		},
		"refund": {
			prepare: func(t *testing.T, w *world) payments.ID {
				return must(t)(w.Charge(t.Context(), "user:ann", "before", charge())).ID
			},
			do: func(ctx context.Context, w *world, id payments.ID) (payments.Outcome, error) {
				return w.Refund(ctx, "user:ann", "again", payments.Everyone(), id, 0)
			},
			want: payments.StateRefunded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var id payments.ID
			if step.prepare != nil {
				id = step.prepare(t, w)
			}
			w.processor.remote, w.processor.fail, w.processor.asked = true, unreachable, 0
			w.processor.did = map[string]payments.Operation{}
			_, err := step.do(t.Context(), w, id)
			if !errors.Is(err, payments.ErrProcessorUnavailable) || !errors.Is(err, unreachable) {
				t.Fatalf("unreachable: %v", err)
			}
			_, err = step.do(t.Context(), w, id)
			if f, _ := fault.As(err); !errors.Is(err, payments.ErrInFlight) || f.RetryAfter() <= 0 {
				t.Errorf("while nobody knows: %v", err)
			}
			_, held := w.balance(t, payments.CustomerAccount(ann, "EUR"))
			if held != step.held {
				t.Errorf("%d is held meanwhile, want %d", held, step.held)
			}
			w.othersWait(t)
			w.processor.fail = nil
			if n, err := w.Recover(t.Context()); n != 0 || err != nil {
				t.Errorf("at once: %d, %v", n, err)
			}
			w.clock.Advance(11 * time.Second)
			if n, err := w.Recover(t.Context()); n != 1 || err != nil {
				t.Errorf("later: %d, %v", n, err)
			}
			if n, err := w.Recover(t.Context()); n != 0 || err != nil {
				t.Errorf("once more: %d, %v", n, err)
			}
			if w.processor.asked != 2 || len(w.processor.did) != 1 {
				t.Errorf("asked %d times, for %v", w.processor.asked, w.processor.did)
			}
			told, err := step.do(t.Context(), w, id)
			if err != nil || !told.Replayed || told.Payment.State != step.want || told.Payment.Busy {
				t.Errorf("in the end: %+v, %v", told, err)
			}
			if now, err := w.Get(t.Context(), payments.Everyone(), told.Payment.ID); err != nil || !reflect.DeepEqual(now, told.Payment) {
				t.Errorf("kept: %+v, %v", now, err)
			}
			holds := told.Payment.Capturable
			w.wantBalances(t, -step.took, holds, step.took)
		})
	}
}

func authorized(t *testing.T, w *world) payments.ID {
	return must(t)(w.Charge(t.Context(), "user:ann", "before", authorize())).ID
}

// othersWait checks that nothing else changes the payments while the processor is asked about them.
func (w *world) othersWait(t *testing.T) {
	t.Helper()
	page, err := w.List(t.Context(), payments.Query{})
	if err != nil || len(page.Payments) != 1 || !page.Payments[0].Busy {
		t.Fatalf("%+v, %v", page, err)
	}
	id := page.Payments[0].ID
	for name, err := range map[string]error{
		"capture": second(w.Capture(t.Context(), "service:x", "c", payments.Everyone(), id, 1, false)),
		"cancel":  second(w.Cancel(t.Context(), "service:x", "c", payments.Everyone(), id)),
		"refund":  second(w.Refund(t.Context(), "service:x", "c", payments.Everyone(), id, 1)),
	} {
		if !errors.Is(err, payments.ErrInFlight) {
			t.Errorf("%s meanwhile: %v", name, err)
		}
	}
	w.clock.Advance(0)
	if n, err := w.Release(t.Context()); n != 0 || err != nil {
		t.Errorf("released meanwhile: %d, %v", n, err)
	}
}

// Whoever asks the processor holds the question: the recovery does not ask beside it.
func TestWhatIsBeingAskedIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.processor.remote = true
	w.processor.before = func() {
		w.clock.Advance(time.Hour)
		if n, err := w.Recover(t.Context()); n != 0 || err != nil {
			t.Errorf("recovered %d, %v", n, err)
		}
	}
	must(t)(w.Charge(t.Context(), "user:ann", "k", charge()))
	if w.processor.asked != 1 {
		t.Errorf("asked %d times", w.processor.asked)
	}
	w.wantBalances(t, -150, 0, 150)
}

// An authorization whose processor answers after it would have expired is released all the same, once it has answered.
func TestAnAuthorizationThatIsAnsweredLateExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.processor.remote, w.processor.fail = true, errors.New("unreachable")
	_, _ = w.Charge(t.Context(), "user:ann", "k", authorize())
	w.clock.Advance(2 * week)
	if n, err := w.Release(t.Context()); n != 0 || err != nil {
		t.Errorf("released %d while nobody knows, %v", n, err)
	}
	w.processor.fail = nil
	if n, err := w.Recover(t.Context()); n != 1 || err != nil {
		t.Errorf("recovered %d, %v", n, err)
	}
	if n, err := w.Release(t.Context()); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	w.wantBalances(t, 0, 0, 0)
}

// A capture, a cancellation or a refund that a processor declines leaves the payment where it was, whoever hears of it:
// the caller, or the recovery after a crash. The decline is told, and is the answer of its key for ever; another key may
// come through.
func TestAChangeThatIsDeclinedLeavesThePaymentWhereItWas(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]struct {
		prepare func(*testing.T, *world) payments.ID
		do      func(context.Context, *world, payments.ID, string) (payments.Outcome, error)
		amount  int64
		held    int64 // before and after
		took    int64
		then    payments.State // once another key comes through
	}{
		"capture": {
			prepare: authorized, amount: 100, held: 150, then: payments.StateCaptured,
			do: func(ctx context.Context, w *world, id payments.ID, key string) (payments.Outcome, error) {
				return w.Capture(ctx, "user:ann", key, payments.Everyone(), id, 100, true)
			},
		},
		"cancel": {
			prepare: authorized, amount: 150, held: 150, then: payments.StateCanceled,
			do: func(ctx context.Context, w *world, id payments.ID, key string) (payments.Outcome, error) {
				return w.Cancel(ctx, "user:ann", key, payments.Everyone(), id)
			},
		},
		"refund": {
			prepare: func(t *testing.T, w *world) payments.ID {
				return must(t)(w.Charge(t.Context(), "user:ann", "before", charge())).ID
			},
			amount: 150, took: 150, then: payments.StateRefunded,
			do: func(ctx context.Context, w *world, id payments.ID, key string) (payments.Outcome, error) {
				return w.Refund(ctx, "user:ann", key, payments.Everyone(), id, 0)
			},
		},
	} {
		for _, how := range []string{"at once", "by a remote processor", "after a crash"} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				id := step.prepare(t, w)
				before, err := w.Get(t.Context(), payments.Everyone(), id)
				if err != nil {
					t.Fatal(err)
				}
				feed, err := w.Watch(t.Context(), ann, "")
				if err != nil {
					t.Fatal(err)
				}
				defer feed.Close()
				w.processor.remote, w.processor.decline = how != "at once", payments.ExpiredCard
				crashed := how == "after a crash"
				if crashed {
					w.processor.fail = errors.New("unreachable")
					if _, err := step.do(t.Context(), w, id, "k"); !errors.Is(err, payments.ErrProcessorUnavailable) {
						t.Fatalf("unreachable: %v", err)
					}
					w.processor.fail = nil
					w.clock.Advance(time.Minute)
					if n, err := w.Recover(t.Context()); n != 1 || err != nil {
						t.Errorf("recovered: %d, %v", n, err)
					}
				}
				told, err := step.do(t.Context(), w, id, "k")
				want := before
				want.UpdatedAt = told.Payment.UpdatedAt
				if now, err := w.Get(t.Context(), payments.Everyone(), id); err != nil || !reflect.DeepEqual(now, want) {
					t.Errorf("the payment is %+v, and was %+v: %v", now, before, err)
				}
				want.Decline = payments.ExpiredCard
				if err != nil || told.Replayed != crashed || !reflect.DeepEqual(told.Payment, want) {
					t.Errorf("told %+v, %v; want %+v", told, err, want)
				}
				w.wantBalances(t, -step.took, step.held, step.took)
				event, _, err := feed.Next(t.Context())
				if w.processor.remote && err == nil {
					if event.Type != payments.TransactionProcessing || !event.Payment.Busy {
						t.Errorf("the watch is first told %+v", event)
					}
					event, _, err = feed.Next(t.Context())
				}
				if err != nil || event.Type != payments.TransactionFailed || event.Amount != step.amount || !reflect.DeepEqual(event.Payment, want) {
					t.Errorf("the watch is told %+v, %v", event, err)
				}
				if n, err := w.Recover(t.Context()); n != 0 || err != nil {
					t.Errorf("recovered once more: %d, %v", n, err)
				}
				w.processor.decline = payments.NotDeclined
				again, err := step.do(t.Context(), w, id, "k")
				if err != nil || !again.Replayed || !reflect.DeepEqual(again.Payment, want) {
					t.Errorf("again: %+v, %v", again, err)
				}
				if p := must(t)(step.do(t.Context(), w, id, "another")); p.State != step.then || p.Decline != payments.NotDeclined {
					t.Errorf("with another key: %+v", p)
				}
			})
		}
	}
}

// What was to be captured is released once its time is over, also where that came while the processor was asked, which
// then declined.
func TestACaptureThatIsDeclinedLateReleasesWhatHasExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := authorized(t, w)
	w.processor.remote, w.processor.fail = true, errors.New("unreachable")
	_, _ = w.Capture(t.Context(), "user:ann", "k", payments.Everyone(), id, 0, false)
	w.clock.Advance(2 * week)
	w.processor.fail, w.processor.decline = nil, payments.Declined
	if n, err := w.Recover(t.Context()); n != 1 || err != nil {
		t.Errorf("recovered %d, %v", n, err)
	}
	if n, err := w.Release(t.Context()); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	w.wantBalances(t, 0, 0, 0)
}

func TestKeysAreForgottenOnceTheyAreOldUnlessTheyAreInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t)(w.Charge(t.Context(), "user:ann", "old", charge()))
	w.processor.remote, w.processor.fail = true, errors.New("unreachable")
	_, _ = w.Charge(t.Context(), "user:ann", "open", charge())
	w.processor.remote, w.processor.fail = false, nil
	w.clock.Advance(23 * time.Hour)
	must(t)(w.Charge(t.Context(), "user:ann", "new", charge()))
	w.clock.Advance(time.Hour + time.Microsecond)
	if n, err := w.Forget(t.Context(), 24*time.Hour); n != 1 || err != nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
	if o, err := w.Charge(t.Context(), "user:ann", "new", charge()); err != nil || !o.Replayed {
		t.Errorf("the new one: %+v, %v", o, err)
	}
	if o, err := w.Charge(t.Context(), "user:ann", "old", charge()); err != nil || o.Replayed {
		t.Errorf("the old one: %+v, %v", o, err)
	}
	if _, err := w.Charge(t.Context(), "user:ann", "open", charge()); !errors.Is(err, payments.ErrInFlight) {
		t.Errorf("the one in flight: %v", err)
	}
}
