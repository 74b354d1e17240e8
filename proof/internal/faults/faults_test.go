package faults

import (
	"context"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each fault, a few times, for each service. What cannot be run on a machine is skipped there, but not where a change is checked.
func TestWhatWasAcknowledgedSurvivesEachFault(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five minutes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	var detail strings.Builder
	figures, err := Measure(ctx, Options{Root: "../../..", Detail: &detail, effort: &effort{
		kills: 3, syncKills: 2, fills: 2, syncs: 2, slowSyncs: 1, restarts: 1, paced: 1, pace: time.Second, failovers: 1, outages: 1, rounds: 2, longOutage: 2 * time.Minute, alone: 2 * time.Second, cuts: 4, controls: 1, mistakes: 7, builds: 1,
		recorded: 500 * time.Millisecond, quiet: 500 * time.Millisecond, underFault: 300 * time.Millisecond,
	}})
	if err != nil {
		t.Fatalf("%v\n%s", err, detail.String())
	}
	is := func(want float64) func(float64) bool { return func(v float64) bool { return v == want } }
	within := func(most float64) func(float64) bool { return func(v float64) bool { return v <= most } }
	some := func(v float64) bool { return v > 0 }
	want := map[string]func(float64) bool{
		"faults.payments_controls_seen": is(7), "faults.payments_replica_rounds": is(2), "faults.payments_auth_outages": is(2), "faults.payments_auth_heal_seconds": within(5),
		"faults.payments_invariants": some, "faults.payments_ordered": some,
	}
	for _, service := range []string{"users", "payments"} {
		for name, ok := range map[string]func(float64) bool{
			"lost_acknowledged": is(0), "doubled": is(0), "else_wrong": is(0), "kills": is(6), "sync_kills": is(2), "disk_full_seconds": within(5),
			"failed_syncs": is(2), "slow_syncs": is(1), "pg_heal_seconds": within(5), "paced_restarts": is(1), "failovers": is(1), "failover_seconds": within(10),
			"standby_acknowledged": is(0), "power_cuts": is(8), "control_lost": some,
		} {
			want["faults."+service+"_"+name] = ok
		}
	}
	for _, f := range figures {
		ok := want[f.Name]
		delete(want, f.Name)
		switch {
		case ok == nil:
			t.Errorf("%s is printed twice, or is no figure of these", f.Name)
		case math.IsNaN(f.Value) && os.Getenv("CI") != "true":
			t.Logf("%s: a fault of it cannot be caused here", f.Name)
		case !ok(f.Value):
			t.Errorf("%s is %v", f.Name, f.Value)
		}
	}
	for name := range want {
		t.Errorf("%s is not printed", name)
	}
	t.Log("\n" + detail.String())
}

func TestABuildHasTheMistakeAndTheRepositoryHasNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := build(t.Context(), "../../..", dir, "none", "payments", []Edit{{"services/payments/main.go", "no such text", ""}})
	if err == nil || !strings.Contains(err.Error(), "0 times") {
		t.Errorf("an edit of what is not there: %v", err)
	}
	for _, c := range Payments().Controls {
		for _, e := range c.Edits {
			text, err := os.ReadFile("../../../" + e.File)
			if err != nil || strings.Count(string(text), e.Old) != 1 {
				t.Errorf("the control that %s: %s: %v", c.Name, e.File, err)
			}
		}
		for _, name := range c.Faults {
			if !slices.ContainsFunc((&bench{lab: &lab{service: Payments()}}).faults(), func(f fault) bool { return f.name == name }) {
				t.Errorf("the control that %s: there is no fault %q", c.Name, name)
			}
		}
	}
}
