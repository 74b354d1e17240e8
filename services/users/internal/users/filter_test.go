package users

import (
	"reflect"
	"testing"
	"time"
)

func TestAUserMatchesOrDoesNot(t *testing.T) {
	day := time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	ada := User{
		ID: "0195f000-0000-7000-8000-000000000001", Email: Email{"Ada@Example.com", "ada@example.com"}, DisplayName: "Ada", FirstName: "Augusta",
		Verified: true, Labels: map[string]string{"plan": "pro", "empty": ""}, State: Active, CreatedAt: day, UpdatedAt: day.Add(time.Hour),
	}
	gone := ada
	gone.State, gone.DeletedAt = Deleted, day.Add(2*time.Hour)
	stone := gone.Scrubbed()
	stone.ErasedAt = gone.DeletedAt

	text := func(f Field, op Op, value string) Filter { return Compare{Field: f, Op: op, Text: value} }
	label := func(key string, op Op, value string) Filter {
		return Compare{Field: FieldLabel, Label: key, Op: op, Text: value}
	}
	when := func(f Field, op Op, value time.Time) Filter { return Compare{Field: f, Op: op, Time: value} }
	yes, no := And{}, Or{}
	for _, row := range []struct {
		name   string
		filter Filter
		ada    bool
		gone   bool
	}{
		{"no filter", nil, true, true},
		{"all of nothing", And{}, true, true},
		{"one of nothing", Or{}, false, false},
		{"all", And{yes, yes}, true, true},
		{"all but one", And{yes, no, yes}, false, false},
		{"one", Or{no, yes, no}, true, true},
		{"none", Or{no, no}, false, false},
		{"not", Not{no}, true, true},
		{"not not", Not{Not{no}}, false, false},
		{"verified", Verified{}, true, true},
		{"the state", text(FieldState, Equal, "ACTIVE"), true, false},
		{"the id", text(FieldID, Equal, "0195f000-0000-7000-8000-000000000001"), true, true},
		{"the key of the email", text(FieldEmail, Equal, "ada@example.com"), true, true},
		{"the text of the email", text(FieldEmail, Equal, "Ada@Example.com"), false, false},
		{"the beginning of the email", text(FieldEmail, Prefix, "ada@"), true, true},
		{"a name in another case", text(FieldDisplayName, Equal, "ada"), false, false},
		{"a beginning", text(FieldFirstName, Prefix, "Aug"), true, true},
		{"the empty beginning", text(FieldLastName, Prefix, ""), true, true},
		{"an end", text(FieldFirstName, Prefix, "usta"), false, false},
		{"less", text(FieldFirstName, Less, "Augustb"), true, true},
		{"less than itself", text(FieldFirstName, Less, "Augusta"), false, false},
		{"at most itself", text(FieldFirstName, LessOrEqual, "Augusta"), true, true},
		{"greater", text(FieldFirstName, Greater, "August"), true, true},
		{"greater than itself", text(FieldFirstName, Greater, "Augusta"), false, false},
		{"at least itself", text(FieldFirstName, GreaterOrEqual, "Augusta"), true, true},
		{"an empty name is empty", text(FieldLastName, Equal, ""), true, true},
		{"an empty name is not there", Present{Field: FieldLastName}, false, false},
		{"a name is there", Present{Field: FieldFirstName}, true, true},
		{"a label", label("plan", Equal, "pro"), true, true},
		{"an empty label", label("empty", Equal, ""), true, true},
		{"a label that is not there equals nothing", label("none", Equal, ""), false, false},
		{"a label that is not there is not less", label("none", Less, "x"), false, false},
		{"a label that is not there has no beginning", label("none", Prefix, ""), false, false},
		{"a label that is not there is other than all", Not{label("none", Equal, "pro")}, true, true},
		{"an empty label is there", Present{Field: FieldLabel, Label: "empty"}, true, true},
		{"a label that is not there", Present{Field: FieldLabel, Label: "none"}, false, false},
		{"made then", when(FieldCreatedAt, Equal, day), true, true},
		{"made then, in another zone", when(FieldCreatedAt, Equal, day.In(time.FixedZone("CET", 3600))), true, true},
		{"made before", when(FieldCreatedAt, Less, day.Add(time.Microsecond)), true, true},
		{"changed after", when(FieldUpdatedAt, Greater, day), true, true},
		{"changed at least then", when(FieldUpdatedAt, GreaterOrEqual, day.Add(time.Hour+time.Microsecond)), false, false},
		{"deleted", Present{Field: FieldDeletedAt}, false, true},
		{"deleted before", when(FieldDeletedAt, Less, day.Add(3*time.Hour)), false, true},
		{"not deleted before", Not{when(FieldDeletedAt, Less, day.Add(3*time.Hour))}, true, false},
		{"deleted after", when(FieldDeletedAt, Greater, time.Time{}), false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			if Matches(row.filter, ada) != row.ada || Matches(row.filter, gone) != row.gone {
				t.Errorf("ada %t, gone %t", Matches(row.filter, ada), Matches(row.filter, gone))
			}
			if Matches(row.filter, stone) {
				t.Error("an erased user matches")
			}
		})
	}
}

func TestASelectionHasDeletedUsersWhereItSaysSoAndErasedOnesNever(t *testing.T) {
	u := User{ID: "a", State: Active}
	gone, stone := u, u
	gone.State, stone.State, stone.ErasedAt = Deleted, Deleted, time.Unix(1, 0)
	for _, show := range []bool{false, true} {
		s := Selection{ShowDeleted: show}
		if !s.Has(u) || s.Has(gone) != show || s.Has(stone) {
			t.Errorf("show deleted %t: %t, %t, %t", show, s.Has(u), s.Has(gone), s.Has(stone))
		}
	}
}

// Whoever adds a field to User has to say what becomes of it: in Equal, and when the user is erased.
func TestEqualSeesEveryFieldOfAUser(t *testing.T) {
	at := time.Unix(1, 0)
	changes := map[string]func(*User){
		"ID": func(u *User) { u.ID = "b" }, "Email": func(u *User) { u.Email.Text = "x" }, "DisplayName": func(u *User) { u.DisplayName = "x" },
		"FirstName": func(u *User) { u.FirstName = "x" }, "LastName": func(u *User) { u.LastName = "x" }, "Address": func(u *User) { u.Address = &Address{} },
		"Verified": func(u *User) { u.Verified = true }, "Labels": func(u *User) { u.Labels = map[string]string{"a": ""} },
		"State": func(u *User) { u.State = Disabled }, "Restores": func(u *User) { u.Restores = Active }, "Revision": func(u *User) { u.Revision = 2 },
		"CreatedAt": func(u *User) { u.CreatedAt = at }, "UpdatedAt": func(u *User) { u.UpdatedAt = at }, "DeletedAt": func(u *User) { u.DeletedAt = at },
		"PurgeAt": func(u *User) { u.PurgeAt = at }, "ErasedAt": func(u *User) { u.ErasedAt = at },
	}
	fields := reflect.TypeFor[User]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		change, ok := changes[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			continue
		}
		u := User{ID: "a", State: Active, Revision: 1}
		v := u
		if change(&v); u.Equal(v) || v.Equal(u) {
			t.Errorf("%s is not seen", name)
		}
	}
	a := Address{"CH", []string{"x"}, "l", "a", "p"}
	for i, b := range []Address{{"FR", []string{"x"}, "l", "a", "p"}, {"CH", nil, "l", "a", "p"}, {"CH", []string{"x"}, "", "a", "p"}, {"CH", []string{"x"}, "l", "", "p"}, {"CH", []string{"x"}, "l", "a", ""}} {
		if a.Equal(&b) {
			t.Errorf("address %d is the same", i)
		}
	}
	if !(User{Labels: map[string]string{}}).Equal(User{}) {
		t.Error("no labels are not none")
	}
}
