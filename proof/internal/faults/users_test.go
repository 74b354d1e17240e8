package faults

import (
	"strings"
	"testing"
	"time"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// The book must see what it is there for. It has two users, one of them with two changes, the second of which nobody answered for.
func TestTheBookOnUsersSeesWhatIsNotAsItWas(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	ada, bob, eve := "user-0@example.com", "user-1@example.com", "user-2@example.com"
	found := func(change func(map[string][]*usersv1.User)) map[string][]*usersv1.User {
		all := map[string][]*usersv1.User{
			ada:                      {{UserId: "a", Email: ada, DisplayName: "name 1"}},
			bob:                      {{UserId: "b", Email: bob, DisplayName: "name 0"}},
			marker + "1@example.com": {{UserId: "m"}},
		}
		change(all)
		return all
	}
	for name, test := range map[string]struct {
		change        func(map[string][]*usersv1.User)
		lost, doubled int
		wrong         string
	}{
		"nothing":                           {change: func(map[string][]*usersv1.User) {}},
		"what nobody answered for was done": {change: func(m map[string][]*usersv1.User) { m[ada][0].DisplayName = "name 2" }},
		"who was asked for without an answer is there": {change: func(m map[string][]*usersv1.User) { m[eve] = []*usersv1.User{{DisplayName: "name 0"}} }},
		"a user is not there":                          {change: func(m map[string][]*usersv1.User) { delete(m, bob) }, lost: 1},
		"a user with a change is not there":            {change: func(m map[string][]*usersv1.User) { delete(m, ada) }, lost: 2},
		"a change is not there":                        {change: func(m map[string][]*usersv1.User) { m[ada][0].DisplayName = "name 0" }, lost: 1},
		"a user is there twice":                        {change: func(m map[string][]*usersv1.User) { m[bob] = append(m[bob], m[bob][0]) }, doubled: 1},
		"a change that nobody asked for":               {change: func(m map[string][]*usersv1.User) { m[ada][0].DisplayName = "name 3" }, wrong: "nobody asked for"},
		"a name that nobody asked for":                 {change: func(m map[string][]*usersv1.User) { m[ada][0].DisplayName = "Ada" }, wrong: "nobody asked for"},
		"another id":                                   {change: func(m map[string][]*usersv1.User) { m[ada][0].UserId = "c" }, wrong: "has the id c"},
		"a user whom nobody asked for":                 {change: func(m map[string][]*usersv1.User) { m["mallory@example.com"] = []*usersv1.User{{}} }, wrong: "whom nobody asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows := []*row{
				{email: ada, id: "a", seen: at, settled: true, changes: []change{{done: at}, {}}},
				{email: bob, id: "b", asked: at.Add(-time.Second), seen: at, settled: true},
				{email: eve},
			}
			u := &users{order: rows, rows: map[string]*row{ada: rows[0], bob: rows[1], eve: rows[2]}}
			a := u.compare(found(test.change), at)
			if a.Acknowledged != 3 || a.Lost != test.lost || a.Doubled != test.doubled {
				t.Errorf("%d acknowledged, %d lost, %d doubled; want 3, %d, %d", a.Acknowledged, a.Lost, a.Doubled, test.lost, test.doubled)
			}
			if wrong := strings.Join(a.Wrong, "; "); (wrong == "") != (test.wrong == "") || !strings.Contains(wrong, test.wrong) {
				t.Errorf("wrong: %q, want %q", wrong, test.wrong)
			}
			if n := u.Acknowledged(time.Time{}, at); n != 3 {
				t.Errorf("%d acknowledged", n)
			}
			if n := u.Acknowledged(at.Add(-time.Minute), at); n != 1 {
				t.Errorf("%d acknowledged of what was asked for in the last minute", n)
			}
			// What was acknowledged later need not be there yet.
			if a := u.compare(map[string][]*usersv1.User{}, at.Add(-time.Second)); a.Acknowledged != 0 || a.Lost != 0 || u.Acknowledged(time.Time{}, at.Add(-time.Second)) != 0 {
				t.Errorf("a second before: %+v", a)
			}
		})
	}
}

func TestACallThatWaitsForThePoolCountsAsTrouble(t *testing.T) {
	t.Parallel()
	back := time.Unix(1_800_000_000, 0)
	second := func(n float64) time.Time { return back.Add(time.Duration(n * float64(time.Second))) }
	for name, test := range map[string]struct {
		ended  []call
		flying []time.Time
		want   float64
	}{
		"all is well":                            {ended: []call{{second(1), second(1.1), false}}, want: 0},
		"a call failed":                          {ended: []call{{second(1), second(1.1), true}, {second(2), second(2.1), false}}, want: 1.1},
		"a call failed before":                   {ended: []call{{second(-1), second(-0.5), true}}, want: 0},
		"a call from before succeeded later":     {ended: []call{{second(-1), second(3), false}}, want: 3},
		"a call from before has not ended":       {flying: []time.Time{second(-1)}, want: 10},
		"a call is slow":                         {ended: []call{{second(1), second(4), false}}, want: 4},
		"a call has been slow and has not ended": {flying: []time.Time{second(8)}, want: 10},
		"a call has begun":                       {flying: []time.Time{second(9.9)}, want: 0},
	} {
		h := &healing{ended: test.ended, flying: make(map[int]time.Time)}
		for i, begun := range test.flying {
			h.flying[i] = begun
		}
		if got := h.trouble(back, second(10)).Sub(back).Seconds(); got != test.want {
			t.Errorf("%s: the last trouble is %v s after, want %v", name, got, test.want)
		}
	}
}
