package api

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/filter"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func TestAFilterMeansWhatItSays(t *testing.T) {
	active := users.Compare{Field: users.FieldState, Op: users.Equal, Text: "ACTIVE"}
	first := func(op users.Op, text string) users.Compare {
		return users.Compare{Field: users.FieldFirstName, Op: op, Text: text}
	}
	label := func(key string, op users.Op, text string) users.Compare {
		return users.Compare{Field: users.FieldLabel, Label: key, Op: op, Text: text}
	}
	for _, row := range []struct {
		filter string
		want   users.Filter
	}{
		{"", nil},
		{" \n\t ", nil},
		{"state = ACTIVE", active},
		{"state=ACTIVE", active},
		{`state = "ACTIVE"`, active},
		{"state:USER_STATE_ACTIVE", active},
		{"state != ACTIVE", users.Not{Filter: active}},
		{"NOT state = ACTIVE", users.Not{Filter: active}},
		{"-state = ACTIVE", users.Not{Filter: active}},
		{"NOT (state = ACTIVE)", users.Not{Filter: active}},
		{"verified", users.Verified{}},
		{"NOT verified", users.Not{Filter: users.Verified{}}},
		{"verified = true", users.Verified{}},
		{"verified != false", users.Verified{}},
		{"verified = false", users.Not{Filter: users.Verified{}}},
		{"verified != true", users.Not{Filter: users.Verified{}}},
		{`first_name = "Ada"`, first(users.Equal, "Ada")},
		{`first_name = Ada`, first(users.Equal, "Ada")},
		{`first_name = 'Ada'`, first(users.Equal, "Ada")},
		{`first_name = "A\"d\\a"`, first(users.Equal, `A"d\a`)},
		{`first_name = ""`, first(users.Equal, "")},
		{`first_name < "B"`, first(users.Less, "B")},
		{`first_name <= "B"`, first(users.LessOrEqual, "B")},
		{`first_name > "B"`, first(users.Greater, "B")},
		{`first_name >= "B"`, first(users.GreaterOrEqual, "B")},
		{`first_name = "A*"`, first(users.Prefix, "A")},
		{`first_name : "A*"`, first(users.Prefix, "A")},
		{`first_name != "A*"`, users.Not{Filter: first(users.Prefix, "A")}},
		{`first_name = "100%_*"`, first(users.Prefix, "100%_")},
		{`first_name = "'; DROP TABLE users;--"`, first(users.Equal, "'; DROP TABLE users;--")},
		{`first_name:*`, users.Present{Field: users.FieldFirstName}},
		{`first_name != "*"`, users.Not{Filter: users.Present{Field: users.FieldFirstName}}},
		{`email = "ADA@xn--bcher-kva.example"`, users.Compare{Field: users.FieldEmail, Op: users.Equal, Text: "ada@b\u00fccher.example"}},
		{`email = ada@example.com`, users.Compare{Field: users.FieldEmail, Op: users.Equal, Text: "ada@example.com"}},
		{`email = "ADA@*"`, users.Compare{Field: users.FieldEmail, Op: users.Prefix, Text: "ada@"}},
		{`email < "M"`, users.Compare{Field: users.FieldEmail, Op: users.Less, Text: "m"}},
		{`user_id = "0195F000-0000-7000-8000-00000000000A"`, users.Compare{Field: users.FieldID, Op: users.Equal, Text: "0195f000-0000-7000-8000-00000000000a"}},
		{`display_name = "x"`, users.Compare{Field: users.FieldDisplayName, Text: "x"}},
		{`last_name = "x"`, users.Compare{Field: users.FieldLastName, Text: "x"}},
		{`labels.plan = "pro"`, label("plan", users.Equal, "pro")},
		{`labels.plan != pro`, users.Not{Filter: label("plan", users.Equal, "pro")}},
		{`labels."the-plan" = "pro"`, label("the-plan", users.Equal, "pro")},
		{`labels.plan = "p*"`, label("plan", users.Prefix, "p")},
		{`labels:plan`, users.Present{Field: users.FieldLabel, Label: "plan"}},
		{`labels:"the-plan"`, users.Present{Field: users.FieldLabel, Label: "the-plan"}},
		{`labels.plan:*`, users.Present{Field: users.FieldLabel, Label: "plan"}},
		{`created_at > "2026-03-01T10:30:00.000001+01:00"`, users.Compare{Field: users.FieldCreatedAt, Op: users.Greater, Time: at("2026-03-01T09:30:00.000001Z")}},
		{`updated_at <= "2026-03-01T09:30:00Z"`, users.Compare{Field: users.FieldUpdatedAt, Op: users.LessOrEqual, Time: at("2026-03-01T09:30:00Z")}},
		{`deleted_at:*`, users.Present{Field: users.FieldDeletedAt}},
		{"verified AND state = ACTIVE", users.And{users.Verified{}, active}},
		{"verified state = ACTIVE", users.And{users.Verified{}, active}},
		{"verified OR state = ACTIVE", users.Or{users.Verified{}, active}},
		{"verified AND verified AND state = ACTIVE", users.And{users.Verified{}, users.Verified{}, active}},
		{"verified OR verified OR state = ACTIVE", users.Or{users.Verified{}, users.Verified{}, active}},
		{"verified AND verified OR state = ACTIVE", users.And{users.Verified{}, users.Or{users.Verified{}, active}}}, // OR binds closer
		{"(verified AND verified) OR state = ACTIVE", users.Or{users.And{users.Verified{}, users.Verified{}}, active}},
		{"  (\n(verified)\n)  ", users.Verified{}},
		{"( ( verified ) ) AND state = ACTIVE", users.And{users.Verified{}, active}},
	} {
		t.Run(row.filter, func(t *testing.T) {
			got, err := parseFilter(row.filter)
			if err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %#v, %v; want %#v", got, err, row.want)
			}
		})
	}
}

func TestAFilterThatIsNotUnderstoodIsRefusedWithItsPlace(t *testing.T) {
	terms := func(n int) string { return strings.TrimSuffix(strings.Repeat("verified AND ", n), " AND ") }
	nested := func(n int) string { return strings.Repeat("(", n) + "verified" + strings.Repeat(")", n) }
	if _, err := parseFilter(terms(64)); err != nil {
		t.Errorf("64 terms are taken: %v", err)
	}
	if _, err := parseFilter(nested(16)); err != nil {
		t.Errorf("16 levels are taken: %v", err)
	}
	for _, row := range []struct {
		name, filter, rule string
		place              int
	}{
		{"an operator at the end", "state =", filter.RuleSyntax, 8},
		{"an operator at the beginning", "= ACTIVE", filter.RuleSyntax, 1},
		{"AND at the end", "verified AND", filter.RuleSyntax, 10},
		{"a string without an end", `first_name = "Ada`, filter.RuleSyntax, 14},
		{"an escape that there is none of", `first_name = "\q"`, filter.RuleSyntax, 14},
		{"a parenthesis that is not closed", "(verified", filter.RuleSyntax, 1},
		{"a parenthesis that is not opened", "verified)", filter.RuleSyntax, 9},
		{"a function", "size(labels) = 1", filter.RuleSyntax, 5},
		{"a function named AND", "AND(verified, verified)", filter.RuleSyntax, 1},
		{"a function without arguments named OR", "OR()", filter.RuleSyntax, 1},
		{"a function without arguments named NOT", "NOT()", filter.RuleSyntax, 5},
		{"a function of two named NOT", "NOT(verified, verified)", filter.RuleSyntax, 13},
		{"a field alone", "state", filter.RuleSyntax, 1},
		{"a text alone", `"Ada"`, filter.RuleSyntax, 1},
		{"a number alone", "7", filter.RuleSyntax, 1},
		{"SQL", `1=1; DROP TABLE users;--`, filter.RuleSyntax, 3},
		{"an unknown field", "password = x", filter.RuleField, 1},
		{"an unknown field with a value that is none", "password = 5", filter.RuleField, 1},
		{"a field of an unknown field", "pass.word = 5", filter.RuleField, 1},
		{"an unknown field behind space and a wide character", ` first_name = "ü" password = x`, filter.RuleField, 19},
		{"a field of a field", "state.x = ACTIVE", filter.RuleField, 1},
		{"a field of verified", "verified.x = true", filter.RuleField, 1},
		{"labels without a key", `labels = "x"`, filter.RuleField, 1},
		{"a label with a key that no label has", `labels.Plan = "x"`, filter.RuleField, 1},
		{"a label of a label", `labels.a.b = "x"`, filter.RuleField, 1},
		{"a number on the left", `1 = 1`, filter.RuleField, 1},
		{"a text on the left", `"state" = ACTIVE`, filter.RuleField, 1},
		{"a comparison on the left", `(state) = ACTIVE`, filter.RuleSyntax, 9},
		{"an order of states", "state < ACTIVE", filter.RuleOperator, 9},
		{"an order of truth", "verified > false", filter.RuleOperator, 12},
		{"an order of beginnings", `first_name > "A*"`, filter.RuleOperator, 14},
		{"a state that there is none of", "state = ENABLED", filter.RuleValue, 9},
		{"a state in lower case", "state = active", filter.RuleValue, 9},
		{"a truth that there is none of", "verified = yes", filter.RuleValue, 12},
		{"a number", "labels.size = 5", filter.RuleValue, 15},
		{"a comparison on the right", "labels.size = (verified = true)", filter.RuleValue, 16},
		{"a time that is none", `created_at > "yesterday"`, filter.RuleValue, 14},
		{"a day", `created_at > "2026-03-01"`, filter.RuleValue, 14},
		{"a time without quotes", `created_at > 2026-03-01T00:00:00Z`, filter.RuleSyntax, 14},
		{"a time finer than is kept", `created_at > "2026-03-01T00:00:00.0000001Z"`, filter.RuleValue, 14},
		{"a beginning of times", `created_at = "2026*"`, filter.RuleValue, 14},
		{"an email that is none", `email = "ada"`, filter.RuleValue, 9},
		{"a star in the middle", `first_name = "a*b"`, filter.RuleValue, 14},
		{"a star at the beginning", `email = "*@example.com"`, filter.RuleValue, 9},
		{"two stars", `first_name = "a**"`, filter.RuleValue, 14},
		{"NUL", `first_name = "a\x00"`, filter.RuleValue, 14},
		{"a label that can be none", `labels:"A"`, filter.RuleValue, 8},
		{"65 bare terms", terms(65), filter.RuleSize, 64*13 + 1},
		{"65 comparisons", strings.Repeat("state=ACTIVE ", 65), filter.RuleSize, 64*13 + 6},
		{"17 levels", nested(17), filter.RuleSize, 17},
		{"17 levels of NOT", strings.Repeat("NOT (", 17) + "verified" + strings.Repeat(")", 17), filter.RuleSize, 16*5 + 5},
		{"4097 characters", strings.Repeat("ü", 4097), filter.RuleSize, 4098},
		{"10,000 terms", terms(10_000), filter.RuleSize, 129_996},
		{"100,000 levels", nested(100_000), filter.RuleSize, 200_009},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := parseFilter(row.filter)
			f, ok := fault.As(err)
			if !ok || !errors.Is(err, users.ErrFilterInvalid) || got != nil {
				t.Fatalf("got %#v, %v", got, err)
			}
			v := f.Violations()
			if len(v) != 1 || v[0].Field != "filter" || v[0].Rule != row.rule || !strings.HasPrefix(v[0].Text, fmt.Sprintf("character %d: ", row.place)) {
				t.Errorf("violations %+v, want %s at %d", v, row.rule, row.place)
			}
		})
	}
}

// A filter as large as any that is taken is parsed within a bound that no call feels.
func TestTheWorstFilterIsParsedAtOnce(t *testing.T) {
	for name, filter := range map[string]string{
		"members":        "a" + strings.Repeat(".a", 2047),
		"words":          strings.Repeat("a ", 2048),
		"minuses":        strings.Repeat("-", 4096),
		"dots":           strings.Repeat(".", 4096),
		"numbers":        strings.Repeat("1.", 2048),
		"quotes":         strings.Repeat(`"" `, 1365),
		"long string":    `first_name = "` + strings.Repeat("x", 4000) + `"`,
		"nots":           strings.Repeat("NOT ", 1024),
		"nested nots":    strings.Repeat("NOT (-(", 8) + "verified" + strings.Repeat("))", 8),
		"nested minuses": strings.Repeat("-(", 16) + strings.Repeat("a ", 2000),
		"ors":            strings.Repeat("OR ", 1365),
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			_, err := parseFilter(filter)
			if err != nil && !errors.Is(err, users.ErrFilterInvalid) {
				t.Error(err)
			}
			if took := time.Since(begin); took > time.Second { // it takes about a millisecond
				t.Errorf("it took %v", took)
			}
		})
	}
}

// someone are users who differ in everything that a filter looks at.
func someone(t testing.TB) []users.User {
	t.Helper()
	day := at("2026-03-01T09:30:00Z")
	email := func(text string) users.Email {
		e, err := users.ParseEmail("email", text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	return []users.User{
		{ID: "0195f000-0000-7000-8000-000000000001", Email: email("ada@example.com"), DisplayName: "Ada", State: users.Active, CreatedAt: day, UpdatedAt: day},
		{ID: "0195f000-0000-7000-8000-000000000002", Email: email("bob@b\u00fccher.example"), DisplayName: "100%_", FirstName: "B", LastName: "O'B",
			Verified: true, Labels: map[string]string{"plan": "pro", "empty": ""}, State: users.Disabled, CreatedAt: day.Add(time.Second), UpdatedAt: day.Add(time.Hour)},
		{ID: "0195f000-0000-7000-8000-000000000003", Email: email("zo\u00eb@example.com"), DisplayName: "Zo\u00eb", FirstName: "Z", Labels: map[string]string{"plan": "free"},
			State: users.Deleted, Restores: users.Active, CreatedAt: day, UpdatedAt: day, DeletedAt: day},
		{ID: "0195f000-0000-7000-8000-000000000004", State: users.Deleted, CreatedAt: day, UpdatedAt: day, DeletedAt: day, ErasedAt: day},
	}
}

// said is a filter, and what it says of a user by another way than that of the filter.
type said struct {
	text string
	of   func(users.User) bool
}

// randomly returns a filter of up to a depth. Where tight, it can stand on either side of AND, OR and behind NOT.
func randomly(r *rand.Rand, depth int, tight bool) said {
	if depth == 0 || r.IntN(4) == 0 {
		return leaf(r)
	}
	parts := []said{randomly(r, depth-1, true)}
	for range 1 + r.IntN(3) {
		parts = append(parts, randomly(r, depth-1, true))
	}
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.text)
	}
	var s said
	switch r.IntN(4) {
	case 0:
		return said{"NOT (" + parts[0].text + ")", func(u users.User) bool { return !parts[0].of(u) }}
	case 1:
		s = said{strings.Join(texts, " OR "), func(u users.User) bool {
			return slices.ContainsFunc(parts, func(p said) bool { return p.of(u) })
		}}
	case 2:
		s = said{strings.Join(texts, " AND "), func(u users.User) bool {
			return !slices.ContainsFunc(parts, func(p said) bool { return !p.of(u) })
		}}
	default: // OR binds closer than AND
		s = said{strings.Join(texts[:len(texts)-1], " AND ") + " OR " + texts[len(texts)-1], func(u users.User) bool {
			n := len(parts)
			return !slices.ContainsFunc(parts[:n-2], func(p said) bool { return !p.of(u) }) && (parts[n-2].of(u) || parts[n-1].of(u))
		}}
	}
	if tight {
		s.text = "( " + s.text + " )"
	}
	return s
}

// leaf returns a comparison.
func leaf(r *rand.Rand) said {
	texts := []struct {
		name string
		of   func(users.User) string
	}{
		{"display_name", func(u users.User) string { return u.DisplayName }},
		{"first_name", func(u users.User) string { return u.FirstName }},
		{"last_name", func(u users.User) string { return u.LastName }},
	}
	values := []string{"", "A", "Ada", "100%_", "100", "B", "O'B", "Z", "Zo\u00eb", "\u00ff"}
	field, value := texts[r.IntN(len(texts))], values[r.IntN(len(values))]
	day := at("2026-03-01T09:30:00Z").Add(time.Duration(r.IntN(3)-1) * time.Second)
	plan, ok := []string{"pro", "free", ""}[r.IntN(3)], func(u users.User) bool { _, ok := u.Labels["plan"]; return ok }
	return []said{
		{fmt.Sprintf("%s = %q", field.name, value), func(u users.User) bool { return field.of(u) == value }},
		{fmt.Sprintf("%s!=%q", field.name, value), func(u users.User) bool { return field.of(u) != value }},
		{fmt.Sprintf("%s<%q", field.name, value), func(u users.User) bool { return field.of(u) < value }},
		{fmt.Sprintf("%s >= %q", field.name, value), func(u users.User) bool { return field.of(u) >= value }},
		{fmt.Sprintf("%s:%q", field.name, value+"x*"), func(u users.User) bool { return strings.HasPrefix(field.of(u), value+"x") }},
		{"verified", func(u users.User) bool { return u.Verified }},
		{"verified = false", func(u users.User) bool { return !u.Verified }},
		{"state != DISABLED", func(u users.User) bool { return u.State != users.Disabled }},
		{fmt.Sprintf("labels.plan = %q", plan), func(u users.User) bool { return ok(u) && u.Labels["plan"] == plan }},
		{fmt.Sprintf("labels.plan != %q", plan), func(u users.User) bool { return !ok(u) || u.Labels["plan"] != plan }},
		{fmt.Sprintf("labels.plan > %q", plan), func(u users.User) bool { return ok(u) && u.Labels["plan"] > plan }},
		{"labels:plan", ok},
		{fmt.Sprintf("created_at <= %q", day.Format(time.RFC3339)), func(u users.User) bool { return !u.CreatedAt.After(day) }},
		{fmt.Sprintf("deleted_at > %q", day.Format(time.RFC3339)), func(u users.User) bool { return !u.DeletedAt.IsZero() && u.DeletedAt.After(day) }},
		{"deleted_at:*", func(u users.User) bool { return !u.DeletedAt.IsZero() }},
		{`email = "ADA@Example.com"`, func(u users.User) bool { return u.Email.Text == "ada@example.com" }},
	}[r.IntN(16)]
}

func TestAFilterSaysOfEveryUserWhatItsPartsSay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	matched, taken := 0, 0
	for range 5000 {
		want := randomly(r, 3, false)
		f, err := parseFilter(want.text)
		if err != nil {
			if strings.Contains(err.Error(), "filter") && strings.Count(want.text, "=") > 20 {
				continue // more than is taken
			}
			t.Fatalf("%s: %v", want.text, err)
		}
		taken++
		for _, u := range someone(t) {
			got := f.Matches(u)
			if got != want.of(u) {
				t.Fatalf("%s says %t of %s", want.text, got, u.ID)
			}
			if got {
				matched++
			}
		}
	}
	if taken < 4500 || matched < taken || matched > 3*taken {
		t.Errorf("%d filters were taken, and matched %d users: that says little", taken, matched)
	}
}

// FuzzFilter looks for a filter that breaks the parser, or that does not say the contrary of its NOT.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`state = ACTIVE AND labels.plan = "pro"`, `NOT (verified OR email:"a*")`, `-verified created_at >= "2026-03-01T09:30:00Z"`, `labels:plan deleted_at:*`,
		`first_name != ""`, `AND(`, `OR()`, `a.b.c = "\x00"`, `((((`, "\x00", `x=-1.5`, `0x = .5`, "\u2028verified", `"\u00e9"."b"<c`, `NOT(verified)`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := parseFilter(text)
		if err != nil {
			if !errors.Is(err, users.ErrFilterInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if filter == nil {
			return
		}
		// A blank is no comparison and a level more is no other filter, as far as both are taken.
		negated, err := parseFilter("NOT (" + text + ")")
		if err != nil {
			return
		}
		for _, u := range someone(t) {
			if filter.Matches(u) == negated.Matches(u) {
				t.Fatalf("%q and its NOT both say %t of %s", text, filter.Matches(u), u.ID)
			}
		}
	})
}

func TestOrders(t *testing.T) {
	for _, row := range []struct {
		text string
		want users.Order
		rule string
	}{
		{"", users.Order{}, ""},
		{"created_at", users.Order{}, ""},
		{" created_at  desc ", users.Order{Desc: true}, ""},
		{"updated_at asc", users.Order{By: users.ByUpdatedAt}, ""},
		{"display_name", users.Order{By: users.ByDisplayName}, ""},
		{"email desc", users.Order{By: users.ByEmail, Desc: true}, ""},
		{"created_at DESC", users.Order{}, "order_by.syntax"},
		{"created_at; DROP TABLE users", users.Order{}, "order_by.syntax"},
		{"created_at desc desc", users.Order{}, "order_by.syntax"},
		{",", users.Order{}, "order_by.syntax"},
		{"email,created_at", users.Order{}, "order_by.single"},
		{"password", users.Order{}, "order_by.field"},
		{"labels.plan", users.Order{}, "order_by.field"},
	} {
		t.Run(row.text, func(t *testing.T) {
			got, err := parseOrder(row.text)
			if row.rule == "" {
				if err != nil || got != row.want {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			f, ok := fault.As(err)
			if !ok || !errors.Is(err, users.ErrOrderInvalid) || len(f.Violations()) != 1 || f.Violations()[0].Field != "order_by" || f.Violations()[0].Rule != row.rule {
				t.Errorf("got %v", err)
			}
		})
	}
}
