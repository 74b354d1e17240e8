package figure_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

const text = `
a.fast: {is: "<=", bound: 10, unit: ms, what: "how long it takes"}
a.many: {is: ">=", bound: 2, unit: ratio, what: "how often"}
b.other: {is: ">=", bound: 2, unit: ratio, what: "of another area"}
`

func goals(t *testing.T) figure.Goals {
	t.Helper()
	g, err := figure.ParseGoals([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAMissedGoalIsPrintedAsMissed(t *testing.T) {
	var out strings.Builder
	figures := []figure.Figure{figure.Median("a.fast", []float64{30, 10, 8}), figure.Median("a.many", []float64{1, 1.5})}
	if err := figure.Print(&out, goals(t), "a", figures, "go run ./proof a", false); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(out.String(), "\n")
	if !strings.Contains(rows[1], "a.fast") || strings.Contains(rows[1], "MISSED") {
		t.Errorf("a median of 10 against <= 10: %q", rows[1])
	}
	if !strings.Contains(rows[2], "1.25") || !strings.Contains(rows[2], "MISSED") {
		t.Errorf("a median of 1.25 against >= 2: %q", rows[2])
	}
	out.Reset()
	if err := figure.Print(&out, goals(t), "a", figures, "go run ./proof a", true); err != nil {
		t.Fatal(err)
	}
	want := `{"figure":"a.many","value":1.25,"unit":"ratio","goal":">= 2","ok":false,"runs":2,"command":"go run ./proof a"}`
	if !strings.Contains(out.String(), want) {
		t.Errorf("JSON:\n%s\nwant a line %s", out.String(), want)
	}
}

func TestWhatIsNoNumberIsMissedAndSaidToBeNone(t *testing.T) {
	figures := []figure.Figure{{Name: "a.fast", Value: math.Inf(-1)}, {Name: "a.many", Value: math.NaN()}}
	for asJSON, want := range map[bool]string{true: `"value":null,"unit":"ms","goal":"<= 10","ok":false`, false: "none"} {
		var out strings.Builder
		if err := figure.Print(&out, goals(t), "a", figures, "", asJSON); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v:\n%s\nwant %s", err, out.String(), want)
		}
	}
}

func TestNothingIsLeftOut(t *testing.T) {
	var out strings.Builder
	if err := figure.Print(&out, goals(t), "a", []figure.Figure{{Name: "a.fast"}}, "", false); err == nil || !strings.Contains(err.Error(), "a.many") {
		t.Errorf("a goal without a figure: %v", err)
	}
	if err := figure.Print(&out, goals(t), "c", []figure.Figure{{Name: "c.new"}}, "", false); err == nil || !strings.Contains(err.Error(), "c.new") {
		t.Errorf("a figure without a goal: %v", err)
	}
	for _, bad := range []string{`a.x: {is: "<", bound: 1, unit: s, what: w}`, `a.x: {is: "<=", bound: 1, what: w}`, `a.x: {iz: "<="}`} {
		if _, err := figure.ParseGoals([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestAGoalThatIsMissedIsNamed(t *testing.T) {
	all := figure.Goals{"a.most": {Is: "<=", Bound: 1}, "a.least": {Is: ">=", Bound: 1}, "a.none": {Is: "<=", Bound: 1}}
	got := figure.Missed(all, []figure.Figure{{Name: "a.most", Value: 1}, {Name: "a.least", Value: 0.5}, {Name: "a.none", Value: math.NaN()}})
	if want := []string{"a.least", "a.none"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
