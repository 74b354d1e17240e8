package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func foundAsMade(t *testing.T, b Backend) {
	full := draft(1)
	full.User.DisplayName = "Łucja \"Lu\" O'Neil; DROP TABLE users --\x00 👩‍🚀"
	bare := draft(2)
	bare.User.FirstName, bare.User.LastName = "", ""
	for i, made := range create(t, b.Store, full, bare) {
		want := []users.User{full.User, bare.User}[i]
		if made != want {
			t.Errorf("made %+v, want %+v", made, want)
		}
		got, err := b.Store.Get(t.Context(), want.ID)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	wantStored(t, b, full.User, bare.User)
}

func unknownNotFound(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	_, err := b.Store.Get(t.Context(), userID(2))
	if !errors.Is(err, users.ErrNotFound) {
		t.Errorf("got %v, want USER_NOT_FOUND", err)
	}
}

func emailOnce(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	other := draft(2)
	other.User.Email = "PERSON.1@EXAMPLE.COM"
	other.EmailKey = users.EmailKey(other.User.Email)
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrEmailTaken) {
		t.Errorf("got %+v, want EMAIL_TAKEN", got)
	}
	wantStored(t, b, made...)
}

func idOnce(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	other := draft(2)
	other.User.ID = userID(1)
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrIDTaken) {
		t.Errorf("got %+v, want USER_ID_TAKEN", got)
	}
	wantStored(t, b, made...)
}

func idBeforeEmail(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	other := draft(1)
	other.Claim.RequestID = requestID(2)
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrIDTaken) {
		t.Errorf("got %+v, want USER_ID_TAKEN", got)
	}
	wantStored(t, b, made...)
}

func equalRequest(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	// The id and the time were made anew for the repetition, as they are when the caller brings no id.
	again := draft(1)
	again.User.ID = userID(99)
	again.User.CreatedAt = epoch.Add(time.Hour)
	if got := create(t, b.Store, again); got[0] != made[0] {
		t.Errorf("got %+v, want the first user %+v", got[0], made[0])
	}
	wantStored(t, b, made...)
}

func otherRequest(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	other := draft(2)
	other.Claim.RequestID = requestID(1)
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrRequestIDReused) {
		t.Errorf("got %+v, want REQUEST_ID_REUSED", got)
	}
	// Also where its id or email is taken too: the request is wrong whatever it asks for.
	other = draft(1)
	other.Claim.Digest[0] ^= 1
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrRequestIDReused) {
		t.Errorf("got %+v, want REQUEST_ID_REUSED", got)
	}
	wantStored(t, b, made...)
}

func callersApart(t *testing.T, b Backend) {
	first, second, third := draft(1), draft(2), draft(3)
	second.Claim.Caller, second.Claim.RequestID = "service:auth", first.Claim.RequestID
	third.Claim.Caller, third.Claim.RequestID = "user:other", first.Claim.RequestID
	wantStored(t, b, create(t, b.Store, first, second, third)...)
}

func refusedLeavesNothing(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	refused := draft(2)
	refused.EmailKey = draft(1).EmailKey
	if got := try(t, b.Store, refused); !errors.Is(got.Err, users.ErrEmailTaken) {
		t.Fatalf("got %+v, want EMAIL_TAKEN", got)
	}
	corrected := draft(2)
	corrected.Claim.Digest[0] ^= 1
	wantStored(t, b, append(made, create(t, b.Store, corrected)...)...)
}

func badDraftAlone(t *testing.T, b Backend) {
	first := create(t, b.Store, draft(0))
	batch := drafts(1, 8)
	batch[3].EmailKey = draft(0).EmailKey
	outcomes, err := b.Store.Create(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	want := first
	for i, o := range outcomes {
		if i == 3 {
			if !errors.Is(o.Err, users.ErrEmailTaken) || o.User != (users.User{}) {
				t.Errorf("draft 3: got %+v, want EMAIL_TAKEN", o)
			}
			continue
		}
		if o.Err != nil || o.User != batch[i].User {
			t.Errorf("draft %d: got %+v", i, o)
		}
		want = append(want, batch[i].User)
	}
	wantStored(t, b, want...)
}

func clashInBatch(t *testing.T, b Backend) {
	one := draft(1)
	equal := draft(1)
	equal.User.ID = userID(50)
	sameRequest := draft(51)
	sameRequest.Claim.RequestID = one.Claim.RequestID
	sameID := draft(52)
	sameID.User.ID = one.User.ID
	sameEmail := draft(53)
	sameEmail.EmailKey = one.EmailKey
	two := draft(2)

	outcomes, err := b.Store.Create(t.Context(), []users.Draft{one, equal, sameRequest, sameID, sameEmail, two})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []users.Outcome{
		{User: one.User},
		{User: one.User},
		{Err: users.ErrRequestIDReused},
		{Err: users.ErrIDTaken},
		{Err: users.ErrEmailTaken},
		{User: two.User},
	} {
		if got := outcomes[i]; got.User != want.User || !errors.Is(got.Err, want.Err) {
			t.Errorf("draft %d: got %+v, want %+v", i, got, want)
		}
	}
	wantStored(t, b, one.User, two.User)
}

// atOnce runs n calls that all begin together, and returns their outcomes.
func atOnce(t *testing.T, s users.Store, n int, call func(i int) users.Draft) []users.Outcome {
	t.Helper()
	outcomes := make([]users.Outcome, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			got, err := s.Create(t.Context(), []users.Draft{call(i)})
			if err != nil {
				t.Errorf("call %d: %v", i, err)
				return
			}
			outcomes[i] = got[0]
		})
	}
	close(begin)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return outcomes
}

func thousandEqual(t *testing.T, b Backend) {
	outcomes := atOnce(t, b.Store, 1000, func(i int) users.Draft {
		d := draft(1)
		d.User.ID = userID(1000 + i) // each call has made an id of its own
		return d
	})
	for i, o := range outcomes {
		if o.Err != nil || o.User != outcomes[0].User {
			t.Fatalf("call %d: got %+v, want the one user %+v", i, o, outcomes[0].User)
		}
	}
	wantStored(t, b, outcomes[0].User)
}

func thousandForOneEmail(t *testing.T, b Backend) {
	outcomes := atOnce(t, b.Store, 1000, func(i int) users.Draft {
		d := draft(i)
		d.User.Email, d.EmailKey = "one@example.com", "one@example.com"
		return d
	})
	var made []users.User
	for i, o := range outcomes {
		switch {
		case o.Err == nil:
			made = append(made, o.User)
		case !errors.Is(o.Err, users.ErrEmailTaken):
			t.Errorf("call %d: got %v, want EMAIL_TAKEN", i, o.Err)
		}
	}
	if len(made) != 1 {
		t.Fatalf("%d users were made, want 1", len(made))
	}
	wantStored(t, b, made...)
}

func overlappingBatches(t *testing.T, b Backend) {
	const batches, size, step = 20, 50, 10
	var wg sync.WaitGroup
	for n := range batches {
		wg.Go(func() {
			batch := drafts(n*step, n*step+size)
			if n%2 == 1 {
				slices.Reverse(batch)
			}
			outcomes, err := b.Store.Create(t.Context(), batch)
			if err != nil {
				t.Errorf("batch %d: %v", n, err)
				return
			}
			for i, o := range outcomes {
				if o.Err != nil || o.User != batch[i].User {
					t.Errorf("batch %d, draft %d: got %+v", n, i, o)
				}
			}
		})
	}
	wg.Wait()
	var want []users.User
	for _, d := range drafts(0, (batches-1)*step+size) {
		want = append(want, d.User)
	}
	wantStored(t, b, want...)
}

func eventsTellAll(t *testing.T, b Backend) {
	// Made in an order that is neither that of ids nor that of times.
	made := create(t, b.Store, draft(3), draft(1))
	made = append(made, create(t, b.Store, draft(2))...)
	all := events(t, b)
	if len(all) != len(made) {
		t.Fatalf("%d events, want %d", len(all), len(made))
	}
	for i, u := range made {
		if all[i].Subject != string(u.ID) {
			t.Errorf("event %d is of %s, want %s", i, all[i].Subject, u.ID)
		}
		want := map[string]any{
			"user_id":      string(u.ID),
			"email":        u.Email,
			"display_name": u.DisplayName,
			"first_name":   u.FirstName,
			"last_name":    u.LastName,
			"state":        string(u.State),
			"revision":     float64(u.Revision),
			"created_at":   u.CreatedAt.Format(time.RFC3339Nano),
			"updated_at":   u.UpdatedAt.Format(time.RFC3339Nano),
		}
		var got map[string]any
		if err := json.Unmarshal(all[i].Payload, &got); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("event %d: %s is %v, want %v", i, name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("event %d has %d fields, want %d", i, len(got), len(want))
		}
	}
}

func canceledMakesNothing(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Store.Create(ctx, drafts(0, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the call was canceled", err)
	}
	wantStored(t, b)
}

func restartKeeps(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(0, 10)...)
	b.Store = b.Reopen(t)
	wantStored(t, b, made...)
	again := draft(3)
	again.User.ID = userID(99)
	if got := create(t, b.Store, again); got[0] != made[3] {
		t.Errorf("after the restart: got %+v, want %+v", got[0], made[3])
	}
	other := draft(99)
	other.EmailKey = draft(3).EmailKey
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrEmailTaken) {
		t.Errorf("after the restart: got %+v, want EMAIL_TAKEN", got)
	}
	wantStored(t, b, append(made, create(t, b.Store, draft(10))...)...)
}
