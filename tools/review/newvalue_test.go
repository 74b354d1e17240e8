package review_test

import (
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// Unknown never counts as unused: whether a switch without a default meets the new value is a question, and an answer
// that could not be had fails. Where nobody asked, that is said, and does not fail.
func TestANewValueOfAnEnumIsNotHarmlessWhereItsConsumersAreNotKnown(t *testing.T) {
	tr := acme(t)
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(coloured, "COLOUR_RED = 1;", "COLOUR_RED = 1;\n  COLOUR_BLUE = 2;", 1))
	tr.Write("shop/shop.go", strings.Replace(shop, "\t\treturn true\n\t}", "\t\treturn true\n\tdefault:\n\t}", 1)+"\nfunc Broken() { nowhere() }\n")
	generate(t, tr)
	f := finding(t, reviewed(t, tr, func(o *review.Options) { o.Consumers = true }), rules.EnumValueAdded)
	if f.Consumers.Verdict != review.Unknown || f.Level != rules.Break || !f.Fails() || !strings.Contains(f.Consumers.Why, "does not compile") {
		t.Errorf("beside code that does not compile: %s, %s: %s", f.Level, f.Consumers.Verdict, f.Consumers.Why)
	}
	f = finding(t, reviewed(t, tr, nil), rules.EnumValueAdded)
	if f.Consumers.Verdict != review.Unknown || f.Fails() || !strings.Contains(f.Consumers.Why, "not looked for") {
		t.Errorf("where nobody looked: %s, %s: %s", f.Level, f.Consumers.Verdict, f.Consumers.Why)
	}
}
