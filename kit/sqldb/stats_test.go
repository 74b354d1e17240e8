package sqldb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// values returns the numbers of each metric, by the order of their labels.
func values(t *testing.T, registry *prometheus.Registry) map[string]string {
	t.Helper()
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		var numbers []string
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() != "test" {
				t.Errorf("%s has the labels %v", f.GetName(), m.GetLabel())
			}
			numbers = append(numbers, fmt.Sprint(m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
		got[f.GetName()] = strings.Join(numbers, " ")
	}
	return got
}

func TestTheMetricsTellOfConnectionsAndOfWhoWaits(t *testing.T) {
	clk := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	opts := options(t.TempDir(), notes())
	opts.Clock, opts.Readers = clk, 2
	db := openDB(t, opts)
	registry := prometheus.NewRegistry()
	if err := registry.Register(db.Metrics()); err != nil {
		t.Fatal(err)
	}
	want := func(when, lines string) {
		t.Helper()
		got := values(t, registry)
		for line := range strings.Lines(lines) {
			name, numbers, _ := strings.Cut(strings.TrimSpace(line), " ")
			if got[name] != numbers {
				t.Errorf("%s: %s is %q, want %q", when, name, got[name], numbers)
			}
		}
	}
	// The first number is of the readers, the second of the writer.
	want("at rest", `go_sql_max_open_connections 2 1
		go_sql_in_use_connections 0 0
		go_sql_wait_count_total 0 0
		concordat_sql_writers_waiting 0`)

	writing, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- db.Write(t.Context(), func(tx *Tx) error {
			close(writing)
			<-release
			return insert(t.Context(), tx, "first")
		})
	}()
	<-writing
	ctx, leave := context.WithCancel(t.Context())
	others := make(chan error, 2)
	go func() { others <- add(t.Context(), db, "second") }()
	go func() { others <- add(ctx, db, "third") }()
	for db.Stats().WritersWaiting < 2 { // the count is the signal
		time.Sleep(time.Millisecond)
	}
	err := db.Read(t.Context(), func(q Querier) error {
		want("with writers that wait", `go_sql_in_use_connections 1 1
			concordat_sql_writers_waiting 2`)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	clk.Advance(3 * time.Second)
	leave()
	if err := <-others; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves gets %v", err)
	}
	want("when one has left", `go_sql_wait_count_total 0 1
		go_sql_wait_duration_seconds_total 0 3
		concordat_sql_writers_waiting 1`)
	close(release)
	if err := errors.Join(<-first, <-others); err != nil {
		t.Fatal(err)
	}
	want("when all is written", `go_sql_in_use_connections 0 0
		go_sql_wait_count_total 0 2
		go_sql_wait_duration_seconds_total 0 6
		concordat_sql_writers_waiting 0`)
	if writer := db.Stats().Pools[1]; writer.Name != "writer" || writer.OpenConnections != 1 || writer.Idle != 1 {
		t.Errorf("%s has %d connections open and %d idle, want the writer with 1 and 1", writer.Name, writer.OpenConnections, writer.Idle)
	}
}

func TestTheMetricsTellOfThePoolOfPostgreSQL(t *testing.T) {
	url := postgrestest.Database(t)
	opts := postgresOptions(URL(url), notes())
	opts.Connections, opts.OneWriter = 4, true
	db := openDB(t, opts)
	writing, release := make(chan struct{}), make(chan struct{})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		first <- db.Write(t.Context(), func(*Tx) error {
			close(writing)
			<-release
			return nil
		})
	}()
	<-writing
	go func() { second <- add(t.Context(), db, "second") }()
	for db.Stats().WritersWaiting < 1 { // the count is the signal
		time.Sleep(time.Millisecond)
	}
	if pools := db.Stats().Pools; len(pools) != 1 || pools[0].Name != "all" || pools[0].MaxOpenConnections != 4 || pools[0].InUse != 1 {
		t.Errorf("the pools are %+v", pools)
	}
	close(release)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	if s := db.Stats(); s.WritersWaiting != 0 || s.Pools[0].WaitCount < 1 || s.Pools[0].InUse != 0 {
		t.Errorf("after that: %+v", s)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(db.Metrics()); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(registry, "go_sql_max_open_connections"); err != nil || n != 1 {
		t.Errorf("%d pools are told of, %v", n, err)
	}
}
