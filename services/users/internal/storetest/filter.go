package storetest

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func filterChecks() []check {
	return []check{
		{"a filter means what Matches says, whatever it and the users are", filterMeans},
		{"signs that mean something in SQL mean nothing in a filter", plainSigns},
		{"the largest filters that there can be are answered", largeFilters},
	}
}

// texts are values that are near each other, and signs that mean something elsewhere.
var texts = []string{"", "a", "ab", "abc", "b", "A", "%", "_", "a%", "a_c", "'", `"`, `\`, "a'; --", "ä", "é", "\u0065\u0301", "zz", "\uD7FF", "\uE000", "\U0010FFFF", "a\U0010FFFF", "👩‍🚀"}

// labelKeys are keys that the contract allows.
var labelKeys = []string{"a", "b", "plan", "a-b", "a_b", "a1"}

func drawText(t *rapid.T, name string) string { return rapid.SampledFrom(texts).Draw(t, name) }

func drawTime(t *rapid.T, name string) time.Time {
	return epoch.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, name)) * time.Microsecond)
}

func drawOrder(t *rapid.T) users.Order { return rapid.SampledFrom(orders()).Draw(t, "order") }

// drawFilter returns a filter of up to some levels.
func drawFilter(t *rapid.T, depth int) users.Filter {
	kinds := 4
	if depth > 0 {
		kinds = 7
	}
	parts := func() []users.Filter {
		all := make([]users.Filter, rapid.IntRange(0, 3).Draw(t, "parts"))
		for i := range all {
			all[i] = drawFilter(t, depth-1)
		}
		return all
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return users.Verified{}
	case 1:
		p := users.Present{Field: drawField(t)}
		if p.Field == users.FieldLabel {
			p.Label = rapid.SampledFrom(labelKeys).Draw(t, "label")
		}
		return p
	case 4:
		return users.And(parts())
	case 5:
		return users.Or(parts())
	case 6:
		return users.Not{Filter: drawFilter(t, depth-1)}
	default:
		return drawCompare(t)
	}
}

func drawField(t *rapid.T) users.Field {
	return users.Field(rapid.IntRange(int(users.FieldID), int(users.FieldDeletedAt)).Draw(t, "field"))
}

func drawCompare(t *rapid.T) users.Compare {
	c := users.Compare{Field: drawField(t), Op: users.Op(rapid.IntRange(int(users.Equal), int(users.Prefix)).Draw(t, "op"))}
	switch {
	case c.Field.IsTime():
		if c.Op == users.Prefix {
			c.Op = users.Equal
		}
		c.Time = drawTime(t, "time")
	case c.Field == users.FieldState:
		c.Op, c.Text = users.Equal, string(rapid.SampledFrom(users.States()).Draw(t, "state"))
	case c.Field == users.FieldID:
		c.Text = string(userID(rapid.IntRange(0, 20).Draw(t, "id")))
		if rapid.Bool().Draw(t, "cut") {
			c.Text = c.Text[:rapid.IntRange(0, 36).Draw(t, "length")]
		}
		if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
			c.Text = drawText(t, "text")
		}
	case c.Field == users.FieldLabel:
		c.Label, c.Text = rapid.SampledFrom(labelKeys).Draw(t, "label"), drawText(t, "text")
	default:
		c.Text = drawText(t, "text")
	}
	return c
}

// drawUser returns the n-th user with values that filters are about.
func drawUser(t *rapid.T, n int) users.Draft {
	d := draft(n)
	u := &d.User
	u.DisplayName, u.FirstName, u.LastName = drawText(t, "display_name"), drawText(t, "first_name"), drawText(t, "last_name")
	u.Email.Key = fmt.Sprintf("%s%d", drawText(t, "email"), n)
	u.Verified = rapid.Bool().Draw(t, "verified")
	u.CreatedAt, u.UpdatedAt = drawTime(t, "created_at"), drawTime(t, "updated_at")
	u.State = rapid.SampledFrom(users.States()).Draw(t, "state")
	if u.State == users.Deleted {
		u.Restores, u.DeletedAt, u.PurgeAt = users.Active, drawTime(t, "deleted_at"), epoch.Add(time.Hour)
	}
	for range rapid.IntRange(0, 3).Draw(t, "labels") {
		if u.Labels == nil {
			u.Labels = make(map[string]string)
		}
		u.Labels[rapid.SampledFrom(labelKeys).Draw(t, "label")] = drawText(t, "value")
	}
	return d
}

func filterMeans(t *testing.T, b Backend) {
	rapid.Check(t, func(t *rapid.T) {
		if err := b.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := make([]users.Draft, rapid.IntRange(0, 20).Draw(t, "users"))
		made := make([]users.User, len(all))
		for i := range all {
			all[i] = drawUser(t, i)
			made[i] = all[i].User
		}
		if _, err := b.Store.Create(t.Context(), all, users.Commit); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			wantSelected(t, b.Store, made, users.Selection{Filter: drawFilter(t, 3), ShowDeleted: rapid.Bool().Draw(t, "show_deleted")}, drawOrder(t))
		}
	})
}

func plainSigns(t *testing.T, b Backend) {
	var made []users.User
	for i, text := range texts {
		d := draft(i)
		d.User.DisplayName, d.User.Labels = text, map[string]string{"a": text}
		made = append(made, create(t, b.Store, d)...)
	}
	byName := []users.Order{{}, {By: users.ByDisplayName, Desc: true}}
	for _, text := range texts {
		for _, op := range []users.Op{users.Equal, users.Prefix, users.Less, users.GreaterOrEqual} {
			wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldDisplayName, Op: op, Text: text}}, byName...)
			wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldLabel, Label: "a", Op: op, Text: text}}, byName...)
		}
	}
	for _, key := range []string{`a"b`, `a'b`, `a\`, "$", ".", "a.b", "[0]", "$.a", ""} {
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldLabel, Label: key, Text: "a"}}, byName...)
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Not{Filter: users.Present{Field: users.FieldLabel, Label: key}}}, byName...)
	}
}

func largeFilters(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(0, 10)...)
	var wide users.Or
	for i := range 64 {
		wide = append(wide, users.Compare{Field: users.FieldEmail, Text: draft(i * 3).User.Email.Key})
	}
	var deep users.Filter = users.Compare{Field: users.FieldDisplayName, Text: "Person 3"}
	for i := range 16 {
		if i%2 == 0 {
			deep = users.Not{Filter: users.Not{Filter: deep}}
		} else {
			deep = users.And{users.Or{deep, users.Verified{}}}
		}
	}
	for _, f := range []users.Filter{wide, users.Not{Filter: wide}, deep, users.Or{users.And{wide}, users.Or{}}} {
		wantSelected(t, b.Store, made, users.Selection{Filter: f}, orders()...)
	}
}
