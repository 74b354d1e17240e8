package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func createChecks() []check {
	return []check{
		{"a user is found as it was made", foundAsMade},
		{"an unknown user is not found", unknownNotFound},
		{"users are found by their ids, and the others left out", foundTogether},
		{"an email is given once whatever its case", emailOnce},
		{"an id is given once", idOnce},
		{"an id and an email that are both taken are an id that is taken", idBeforeEmail},
		{"an equal request is answered with the first user", equalRequest},
		{"an equal request is answered with the first user as it is now", equalRequestLater},
		{"a request id is not used for another request", otherRequest},
		{"request ids of different callers have nothing to do with each other", callersApart},
		{"a refused draft leaves its request id, its id and its email free", refusedLeavesNothing},
		{"a bad draft in the middle of a batch fails alone", badDraftAlone},
		{"drafts of one batch clash with each other in their order", clashInBatch},
		{"a draft that depends on a refused one is made", clashWithRefused},
		{"what is only checked has the same outcomes and is not stored", checkedOnly},
		{"a thousand equal requests at once make one user", thousandEqual},
		{"a thousand requests for one email at once make one user", thousandForOneEmail},
		{"eight creators of equal ids, emails and requests at once make each once", eightCreators},
		{"batches that overlap make each user once", overlappingBatches},
		{"a canceled call makes nothing", canceledMakesNothing},
		{"a restart keeps users, claims and events", restartKeeps},
	}
}

func foundAsMade(t *testing.T, b Backend) {
	full := draft(1)
	full.User.DisplayName = "Łucja \"Lu\" O'Neil; DROP TABLE users --%_\\ 👩‍🚀"
	full.User.Verified = true
	full.User.Labels = map[string]string{"plan": "pro", "team_1": "", "a-b": `"'; -- <&> \ 👩‍🚀`}
	full.User.Address = &users.Address{CountryCode: "PL", Lines: []string{"ul. Długa 1", ""}, Locality: "Łódź", AdministrativeArea: "ŁD", PostalCode: "90-001"}
	bare := draft(2)
	bare.User.FirstName, bare.User.LastName = "", ""
	bare.User.Address = &users.Address{CountryCode: "CH"}
	for i, made := range create(t, b.Store, full, bare) {
		want := []users.User{full.User, bare.User}[i]
		if !made.Equal(want) {
			t.Errorf("made %+v, want %+v", made, want)
		}
		got, err := b.Store.Get(t.Context(), want.ID)
		if err != nil || !got.Equal(want) {
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

func foundTogether(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(0, 20)...)
	got, err := b.Store.BatchGet(t.Context(), []users.ID{userID(7), userID(99), userID(3), userID(98), userID(0)})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b users.User) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if want := []users.User{made[0], made[3], made[7]}; !equal(got, want) {
		t.Errorf("got %s, want %s", show(got), show(want))
	}
	if none, err := b.Store.BatchGet(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("of no ids: %v, %v", none, err)
	}
	all := make([]users.ID, users.MaxBatchGet)
	for i := range all {
		all[i] = userID(i)
	}
	if got, err := b.Store.BatchGet(t.Context(), all); err != nil || len(got) != 20 {
		t.Errorf("of the most ids: %d users, %v; want 20", len(got), err)
	}
}

func emailOnce(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	other := draft(2)
	other.User.Email = users.Email{Text: "PERSON.1@EXAMPLE.COM", Key: draft(1).User.Email.Key}
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
	if got := create(t, b.Store, again); !got[0].Equal(made[0]) {
		t.Errorf("got %+v, want the first user %+v", got[0], made[0])
	}
	wantStored(t, b, made...)
}

func equalRequestLater(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	now := change(t, b.Store, 1, func(u users.User) users.User { u.FirstName = "Perdita"; return u })
	if got := try(t, b.Store, draft(1)); got.Err != nil || !got.User.Equal(now) {
		t.Errorf("got %+v, want the user as it is now %+v", got, now)
	}
	wantStored(t, b, now)
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
	refused.User.Email.Key = draft(1).User.Email.Key
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
	batch[3].User.Email.Key = draft(0).User.Email.Key
	outcomes, err := b.Store.Create(t.Context(), batch, users.Commit)
	if err != nil {
		t.Fatal(err)
	}
	want := first
	for i, o := range outcomes {
		if i == 3 {
			if !errors.Is(o.Err, users.ErrEmailTaken) || o.User.ID != "" {
				t.Errorf("draft 3: got %+v, want EMAIL_TAKEN", o)
			}
			continue
		}
		if o.Err != nil || !o.User.Equal(batch[i].User) {
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
	sameEmail.User.Email.Key = one.User.Email.Key
	two := draft(2)

	outcomes, err := b.Store.Create(t.Context(), []users.Draft{one, equal, sameRequest, sameID, sameEmail, two}, users.Commit)
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
		if got := outcomes[i]; !got.User.Equal(want.User) || !errors.Is(got.Err, want.Err) {
			t.Errorf("draft %d: got %+v, want %+v", i, got, want)
		}
	}
	wantStored(t, b, one.User, two.User)
}

func clashWithRefused(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	refused := draft(2)
	refused.User.ID = made[0].ID
	depends := draft(3) // on the email and the request of the refused one, which leaves them free
	depends.User.Email, depends.Claim.RequestID = refused.User.Email, refused.Claim.RequestID
	later := draft(4)
	later.User.Email = depends.User.Email
	outcomes, err := b.Store.Create(t.Context(), []users.Draft{refused, depends, later}, users.Commit)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(outcomes[0].Err, users.ErrIDTaken) || outcomes[1].Err != nil || !outcomes[1].User.Equal(depends.User) ||
		!errors.Is(outcomes[2].Err, users.ErrEmailTaken) {
		t.Errorf("got %+v", outcomes)
	}
	wantStored(t, b, made[0], depends.User)
}

func checkedOnly(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	clash := draft(3)
	clash.User.Email = draft(2).User.Email
	sub := watch(t, b, nil)
	outcomes, err := b.Store.Create(t.Context(), []users.Draft{draft(1), draft(2), clash}, users.CheckOnly)
	if err != nil {
		t.Fatal(err)
	}
	if outcomes[0].Err != nil || !outcomes[0].User.Equal(made[0]) || outcomes[1].Err != nil || !outcomes[1].User.Equal(draft(2).User) ||
		!errors.Is(outcomes[2].Err, users.ErrEmailTaken) {
		t.Errorf("got %+v", outcomes)
	}
	wantStored(t, b, made...)
	second := create(t, b.Store, draft(2))
	wantEvents(t, sub, users.Event{Type: users.EventCreated, At: second[0].UpdatedAt, User: second[0], Matches: true})
	wantStored(t, b, append(made, second...)...)
}

// eightCreators has eight callers make the same forty users in different orders, each with requests, ids and emails that are those of the
// others or not.
func eightCreators(t *testing.T, b Backend) {
	const creators, n = 8, 40
	results := make([][]users.Outcome, creators)
	var wg sync.WaitGroup
	for c := range creators {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(9, uint64(c)))
			results[c] = make([]users.Outcome, n)
			for _, i := range random.Perm(n) {
				d := draft(i)
				switch {
				case i%3 == 0: // another request for the same email
					d.User.ID, d.Claim.RequestID = userID(1000+c*n+i), requestID(1000+c*n+i)
				case i%3 == 1: // another request for the same id
					d.User.Email, d.Claim.RequestID = email(fmt.Sprintf("p%d@%d.example", i, c)), requestID(1000+c*n+i)
				}
				got, err := b.Store.Create(t.Context(), []users.Draft{d}, users.Commit)
				if err != nil {
					t.Errorf("creator %d, user %d: %v", c, i, err)
					return
				}
				results[c][i] = got[0]
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	var want []users.User
	for i := range n {
		var winner users.User
		for c := range creators {
			o := results[c][i]
			switch refusal := []error{users.ErrEmailTaken, users.ErrIDTaken, nil}[i%3]; {
			case o.Err == nil && winner.ID == "":
				winner = o.User
			case o.Err == nil && (refusal != nil || !o.User.Equal(winner)):
				t.Errorf("user %d was made twice: %+v and %+v", i, winner, o.User)
			case o.Err != nil && !errors.Is(o.Err, refusal):
				t.Errorf("creator %d, user %d: got %v, want %v", c, i, o.Err, refusal)
			}
		}
		if winner.ID == "" {
			t.Errorf("user %d was not made", i)
		}
		want = append(want, winner)
	}
	wantStored(t, b, want...)
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
			got, err := s.Create(t.Context(), []users.Draft{call(i)}, users.Commit)
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
		if o.Err != nil || !o.User.Equal(outcomes[0].User) {
			t.Fatalf("call %d: got %+v, want the one user %+v", i, o, outcomes[0].User)
		}
	}
	wantStored(t, b, outcomes[0].User)
}

func thousandForOneEmail(t *testing.T, b Backend) {
	outcomes := atOnce(t, b.Store, 1000, func(i int) users.Draft {
		d := draft(i)
		d.User.Email = users.Email{Text: "one@example.com", Key: "one@example.com"}
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
			outcomes, err := b.Store.Create(t.Context(), batch, users.Commit)
			if err != nil {
				t.Errorf("batch %d: %v", n, err)
				return
			}
			for i, o := range outcomes {
				if o.Err != nil || !o.User.Equal(batch[i].User) {
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

func canceledMakesNothing(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Store.Create(ctx, drafts(0, 3), users.Commit); !errors.Is(err, context.Canceled) {
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
	if got := create(t, b.Store, again); !got[0].Equal(made[3]) {
		t.Errorf("after the restart: got %+v, want %+v", got[0], made[3])
	}
	other := draft(99)
	other.User.Email.Key = draft(3).User.Email.Key
	if got := try(t, b.Store, other); !errors.Is(got.Err, users.ErrEmailTaken) {
		t.Errorf("after the restart: got %+v, want EMAIL_TAKEN", got)
	}
	wantStored(t, b, append(made, create(t, b.Store, draft(10))...)...)
}
