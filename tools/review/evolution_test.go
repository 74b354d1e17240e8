package review_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/doctest"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

var update = flag.Bool("update", false, "write what is compared anew")

// An evolution is a change of a contract as people speak of it, and what old and new programs then read of each other.
type evolution struct {
	name string
	// edits are pairs of texts in testdata/evolution/payments/v1/payments.proto, old and new.
	edits []string
	// beside is a file that comes in beside the old one.
	beside string
	// exchanges are what one side sends and the other reads. Each direction is in it.
	exchanges []exchange
}

var evolutions = []evolution{
	{name: "add a field", edits: []string{"  string note = 4;", "  string note = 4;\n  string coupon = 6;"}, exchanges: []exchange{
		{"old", `note: "gift"`, same, same},
		{"new", `note: "gift" coupon: "SPRING"`, known(`note: "gift"`), known(`note: "gift"`)},
	}},
	{name: "delete a field, its number and name reserved", edits: []string{"  string note = 4;", "  reserved 4;\n  reserved \"note\";"}, exchanges: []exchange{
		{"old", `note: "gift"`, lost(""), lost("")},
		{"new", `items: 3`, same, same},
	}},
	{name: "delete a field and reserve nothing", edits: []string{"  string note = 4;\n", ""}, exchanges: []exchange{
		{"old", `note: "gift"`, lost(""), lost("")},
		{"new", `items: 3`, same, same},
	}},
	{name: "give the number of a deleted field to another one", edits: []string{"int64 amount_cents = 2;", "string colour = 2;"}, exchanges: []exchange{
		{"old", `amount_cents: 150`, lost(""), lost("")},
		{"new", `colour: "red"`, lost(""), lost("")},
	}},
	{name: "give a field another number", edits: []string{"int32 items = 3;", "int32 items = 7;"}, exchanges: []exchange{
		{"old", `items: 3`, lost(""), same},
		{"new", `items: 3`, lost(""), same},
	}},
	{name: "rename a field", edits: []string{"int32 items = 3;", "int32 item_count = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, known(`item_count: 3`), lost("")},
		{"new", `item_count: 3`, known(`items: 3`), lost("")},
	}},
	{name: "int32 → int64", edits: []string{"int32 items = 3;", "int64 items = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, same, same},
		{"new", `items: 3`, same, same},
		{"new", `items: 5000000000`, lost(`items: 705032704`), refused},
	}},
	{name: "int64 → int32", edits: []string{"int64 amount_cents = 2;", "int32 amount_cents = 2;"}, exchanges: []exchange{
		{"old", `amount_cents: 150`, same, same},
		{"old", `amount_cents: 5000000000`, lost(`amount_cents: 705032704`), refused},
		{"new", `amount_cents: 150`, same, same},
	}},
	{name: "int32 → uint32", edits: []string{"int32 items = 3;", "uint32 items = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, same, same},
		{"old", `items: -1`, lost(`items: 4294967295`), refused},
		{"new", `items: 3`, same, same},
		{"new", `items: 4294967295`, lost(`items: -1`), refused},
	}},
	{name: "int32 → sint32", edits: []string{"int32 items = 3;", "sint32 items = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, lost(`items: -2`), same},
		{"new", `items: 3`, lost(`items: 6`), same},
	}},
	{name: "int32 → string", edits: []string{"int32 items = 3;", "string items = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, lost(""), refused},
		{"new", `items: "three"`, lost(""), refused},
	}},
	{name: "string → bytes", edits: []string{"string note = 4;", "bytes note = 4;"}, exchanges: []exchange{
		{"old", `note: "gift"`, same, lost(`note: "\x82'\xed"`)},
		{"new", `note: "gift"`, same, lost(`note: "Z2lmdA=="`)},
		{"new", `note: "\xff\x00"`, refused, lost(`note: "/wA="`)},
	}},
	{name: "string → repeated string", edits: []string{"string note = 4;", "repeated string note = 4;"}, exchanges: []exchange{
		{"old", `note: "gift"`, same, refused},
		{"new", `note: "gift"`, same, refused},
		{"new", `note: "gift" note: "urgent"`, lost(`note: "urgent"`), refused},
	}},
	{name: "int32 → repeated int32", edits: []string{"int32 items = 3;", "repeated int32 items = 3;"}, exchanges: []exchange{
		{"old", `items: 3`, packed, refused},
		{"new", `items: 3`, lost(""), refused},
	}},
	{name: "make a field optional", edits: []string{"string note = 4;", "optional string note = 4;"}, exchanges: []exchange{
		{"old", `note: "gift"`, same, same},
		{"new", `note: "gift"`, same, same},
		{"new", `note: ""`, unset, unset},
	}},
	{name: "move two fields into a oneof", edits: []string{"  int32 items = 3;\n", "", "  string note = 4;", "  oneof extra {\n    int32 items = 3;\n    string note = 4;\n  }", "  // How many things are paid.\n\n", ""}, exchanges: []exchange{
		{"old", `items: 3`, same, same},
		{"old", `items: 3 note: "gift"`, lost(`note: "gift"`), refused},
		{"new", `items: 3`, same, same},
	}},
	{name: "add a value to an enum", edits: []string{"  PAYMENT_METHOD_TRANSFER = 2;", "  PAYMENT_METHOD_TRANSFER = 2;\n  PAYMENT_METHOD_WALLET = 3;"}, exchanges: []exchange{
		{"old", `method: PAYMENT_METHOD_CARD`, same, same},
		{"new", `method: PAYMENT_METHOD_CARD`, same, same},
		{"new", `method: PAYMENT_METHOD_WALLET`, known(`method: 3`), lost("")},
	}},
	{name: "delete a value of an enum, its number and name reserved", edits: []string{"  PAYMENT_METHOD_TRANSFER = 2;", "  reserved 2;\n  reserved \"PAYMENT_METHOD_TRANSFER\";"}, exchanges: []exchange{
		{"old", `method: PAYMENT_METHOD_TRANSFER`, lost(`method: 2`), lost("")},
		{"new", `method: PAYMENT_METHOD_CARD`, same, same},
	}},
	{name: "rename a value of an enum", edits: []string{"PAYMENT_METHOD_TRANSFER", "PAYMENT_METHOD_BANK"}, exchanges: []exchange{
		{"old", `method: PAYMENT_METHOD_TRANSFER`, known(`method: PAYMENT_METHOD_BANK`), lost("")},
		{"new", `method: PAYMENT_METHOD_BANK`, known(`method: PAYMENT_METHOD_TRANSFER`), lost("")},
	}},
	{name: "deprecate a field, with what replaces it and a sunset", edits: []string{"  // What the customer reads.\n  string note = 4;", "  // What the customer reads. Deprecated: use order_id instead. Sunset: 2027-06-30.\n  string note = 4 [deprecated = true];"}, exchanges: unchanged},
	{name: "accept less in a request", edits: []string{"max_len = 64", "max_len = 32"}, exchanges: unchanged},
	{name: "add an RPC", edits: []string{"  // Gives money back.", "  rpc Cancel(RefundRequest) returns (RefundResponse);\n\n  // Gives money back."}, exchanges: unchanged},
	{name: "delete an RPC", edits: []string{"  // Gives money back.\n  rpc Refund(RefundRequest) returns (RefundResponse);\n", ""}, exchanges: unchanged},
	{name: "rename an RPC", edits: []string{"rpc Refund(", "rpc GiveBack("}, exchanges: unchanged},
	{name: "let an RPC stream its answers", edits: []string{"returns (RefundResponse)", "returns (stream RefundResponse)"}, exchanges: unchanged},
	{name: "turn the package into v2", edits: []string{"package payments.v1;", "package payments.v2;"}, exchanges: unchanged},
	{name: "put v2 beside v1", beside: "payments/v2/payments.proto", exchanges: unchanged},
}

// unchanged are the exchanges of a change that the message does not show.
var unchanged = []exchange{{"old", `order_id: "X1" amount_cents: 150`, same, same}, {"new", `order_id: "X1" amount_cents: 150`, same, same}}

// contracts compiles the contract before and after a change.
func (e evolution) contracts(t *testing.T) (before, after *compiled) {
	t.Helper()
	const path = "payments/v1/payments.proto"
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join("testdata", "evolution", filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	old := read(path)
	now := old
	for pair := range slices.Chunk(e.edits, 2) {
		if strings.Count(now, pair[0]) != 1 {
			t.Fatalf("%q stands %d times in the contract", pair[0], strings.Count(now, pair[0]))
		}
		now = strings.Replace(now, pair[0], pair[1], 1)
	}
	files := map[string]string{path: now}
	if e.beside != "" {
		files[e.beside] = read(e.beside)
	}
	return compile(t, map[string]string{path: old}), compile(t, files)
}

// worst puts the verdicts on a change together, and lists the rules that have it approved and those that only say it.
func worst(before, after *schema.Image) (axes [4]rules.Verdict, fails, notes []string) {
	axes = [4]rules.Verdict{rules.Safe, rules.Safe, rules.Safe, rules.Safe}
	for _, f := range rules.Check(before, after, schema.Compare(before, after), today) {
		for n, v := range []rules.Verdict{f.Axes.Wire, f.Axes.JSON, f.Axes.Source, f.Axes.Semantics} {
			axes[n] = worse(axes[n], v)
		}
		switch {
		case f.Implied != "":
		case f.Level == rules.Note:
			notes = append(notes, f.Rule)
		default:
			fails = append(fails, f.Rule)
		}
	}
	slices.Sort(fails)
	return axes, slices.Compact(fails), notes
}

func worse(a, b rules.Verdict) rules.Verdict {
	order := []rules.Verdict{rules.Safe, rules.Risk, rules.Breaks}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// What the review says of the wire and of JSON is what programs with the old and the new contract then do. Source and
// semantics cannot be seen from messages; what is said of them stands in the table.
func TestTheVerdictOnAChangeIsWhatHappens(t *testing.T) {
	for _, e := range evolutions {
		t.Run(e.name, func(t *testing.T) {
			before, after := e.contracts(t)
			axes, _, _ := worst(before.image, after.image)
			wire, json := e.happens(t, before, after)
			if axes[0] != wire || axes[1] != json {
				t.Errorf("the review says %s on the wire and %s in JSON; it is %s and %s", axes[0], axes[1], wire, json)
			}
		})
	}
}

func TestTheTableOfChangesIsWhatTheReviewSays(t *testing.T) {
	var table strings.Builder
	table.WriteString("| change | wire | JSON | source | meaning | the review | what the other side reads |\n|---|---|---|---|---|---|---|\n")
	for _, e := range evolutions {
		before, after := e.contracts(t)
		axes, fails, notes := worst(before.image, after.image)
		fmt.Fprintf(&table, "| %s", e.name)
		for _, v := range axes {
			fmt.Fprintf(&table, " | %s", map[rules.Verdict]string{rules.Safe: "safe", rules.Risk: "at risk", rules.Breaks: "**breaks**"}[v])
		}
		says := "passes"
		switch {
		case len(fails) > 0:
			says = "`" + strings.Join(fails, "`, `") + "`"
		case len(notes) > 0:
			says += ", noting `" + strings.Join(notes, "`, `") + "`"
		}
		fmt.Fprintf(&table, " | %s | %s |\n", says, e.example())
	}
	doctest.Section(t, filepath.Join("..", "..", "docs", "evolving-the-contract.md"), "changes", table.String(), *update)
}
