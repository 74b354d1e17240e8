package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/conformance"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/rpc"
)

// TestMain is also the main function of the servers that are measured, and of the clients that are processes.
func TestMain(m *testing.M) {
	if role := os.Getenv(conformance.Variable); role != "" {
		os.Exit(conformance.Serve(role))
	}
	if variant := os.Getenv(rpc.Variable); variant != "" {
		os.Exit(rpc.Serve(variant))
	}
	os.Exit(m.Run())
}

func goals(t *testing.T) figure.Goals {
	t.Helper()
	g, err := figure.ParseGoals(goalsText)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEveryGoalBelongsToAnArea(t *testing.T) {
	for name := range goals(t) {
		area, _, ok := strings.Cut(name, ".")
		if !ok || !slices.Contains(areas(), area) {
			t.Errorf("goal %s is of no area, so nothing prints it: the areas are %v", name, areas())
		}
	}
}

// printed runs an area and holds what it prints against the goals: what the figures are is no matter here, on a busy machine and
// with the race detector, but that they are all there is. A figure above zero is one that was measured; those in none count what
// should not be, or are a difference. It returns what stands behind the figures, or the error of the area.
func printed(t *testing.T, area string, none ...string) (string, error) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes some ten seconds")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var detail, out strings.Builder
	figures, err := measure(ctx, options{Area: area, Quick: true, Root: ".."}, &detail)
	if err != nil {
		return detail.String(), err
	}
	all := goals(t)
	if err := figure.Print(&out, all, area, figures, "go run ./proof "+area, true); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(all, func(name string, _ figure.Goal) bool { return !strings.HasPrefix(name, area+".") })
	for line := range strings.Lines(out.String()) {
		var got struct {
			Figure string
			Value  *float64
			Runs   int
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if _, ok := all[got.Figure]; !ok {
			t.Errorf("%s is printed twice, or is no figure of the area", got.Figure)
		}
		delete(all, got.Figure)
		if got.Runs == 0 {
			t.Errorf("%s is of no runs", got.Figure)
		}
		if got.Value != nil && *got.Value <= 0 && !slices.Contains(none, got.Figure) {
			t.Errorf("%s is %v", got.Figure, *got.Value)
		}
	}
	if len(all) > 0 {
		t.Errorf("not printed: %v", slices.Sorted(maps.Keys(all)))
	}
	return detail.String(), nil
}

func TestTheRequestPathIsMeasured(t *testing.T) {
	// A share of what is good may be none at all, and a short run has allocations of its own, which may outweigh what a call has
	// more; the rest is a time, a size or a rate.
	detail, err := printed(t, "rpc", "rpc.overload_goodput", "rpc.overload_refusal_p99", "rpc.allocs_over_bare")
	if err != nil {
		t.Fatalf("%v\n%s", err, detail)
	}
	for _, part := range []string{"unary calls", "stock chain", "slow clients", "messages of 100 bytes", "subscribers", "× the load", "users from exec"} {
		if !strings.Contains(detail, part) {
			t.Errorf("what stands behind the figures does not speak of %q:\n%s", part, detail)
		}
	}
}

func TestTheUsersServiceIsMeasured(t *testing.T) {
	// Memory need not grow, and nothing need fail.
	detail, err := printed(t, "users", "users.sqlite_stream_rss", "users.postgres_stream_rss",
		"users.failed_calls_on_replica_kill", "users.wrong_events_on_replica_kill")
	if errors.Is(err, postgres.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, detail)
	}
	for _, part := range []string{"CreateUsers", "ListUsers", "GetUser", "pgbench -S", "StreamUsers", "watchers", "two replicas", "not the 1,000,000"} {
		if !strings.Contains(detail, part) {
			t.Errorf("what stands behind the figures does not speak of %q:\n%s", part, detail)
		}
	}
}

func TestPaymentsAreMeasured(t *testing.T) {
	// Memory need not grow.
	detail, err := printed(t, "payments", "payments.growth_memory")
	if errors.Is(err, postgres.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, detail)
	}
	for _, part := range []string{"charges of the store", "ProcessCharges", "one for each key", "postgres: charges", "sqlite: charges", "many  10000"} {
		if !strings.Contains(detail, part) {
			t.Errorf("what stands behind the figures does not speak of %q:\n%s", part, detail)
		}
	}
}

func TestTheSchemaReviewIsMeasured(t *testing.T) {
	// Quickly, the self-test tries two rules and no harmless edit.
	detail, err := printed(t, "review", "review.selftest_harmless", "review.selftest_false")
	if err != nil {
		t.Fatalf("%v\n%s", err, detail)
	}
	for _, part := range []string{"ours, with consumers, a new base", "large, with consumers", "self-test: caught"} {
		if !strings.Contains(detail, part) {
			t.Errorf("what stands behind the figures does not speak of %q:\n%s", part, detail)
		}
	}
}

// Which cases pass is for the tests of the package conformance to say, and what is left after a fault for those of the package
// faults: here, that the cases are measured.
func TestTheCasesOfOthersAreMeasured(t *testing.T) {
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // else each process of a case would end with a second's sleep
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var detail strings.Builder
	figures, err := conformance.Measure(ctx, conformance.Options{Quick: true, Detail: &detail})
	if err != nil {
		t.Fatalf("%v\n%s", err, detail.String())
	}
	all := goals(t)
	for _, f := range figures {
		if _, ok := all[f.Name]; !ok {
			t.Errorf("%s has no goal", f.Name)
		}
		if strings.HasSuffix(f.Name, "_passed") && f.Value < 10 {
			t.Errorf("%s is %v:\n%s", f.Name, f.Value, detail.String())
		}
	}
	for _, part := range []string{"large_unary", "compute_engine_creds", "h2spec"} {
		if !strings.Contains(detail.String(), part) {
			t.Errorf("what stands behind the figures does not speak of %q:\n%s", part, detail.String())
		}
	}
}
