package archtest

import (
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func TestTheTreeKeepsTheRules(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	g, err := load(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	limits, bans := expand(limits(), bans(), services())
	for _, v := range check(g, limits, bans) {
		t.Errorf("%s", v)
	}
	for _, blind := range dead(g, limits, bans) {
		t.Error(blind)
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	for _, l := range limits() {
		if strings.TrimSpace(l.why) == "" {
			t.Errorf("the limit of %s has no reason", l.from)
		}
	}
	for _, b := range bans() {
		if strings.TrimSpace(b.why) == "" {
			t.Errorf("the ban of %s from %s has no reason", b.never, b.from)
		}
	}
}
