package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// rendered returns the root of the repository and what the generator makes of it.
func rendered(t *testing.T) (root string, services []service, board dashboard, rules ruleFile, files map[string][]byte) {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	if services, err = readContract(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if files, err = render(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(files[folder+"/concordat.json"], &board); err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(files[folder+"/rules.yaml"]))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	return root, services, board, rules, files
}

func TestTheFilesAreWhatTheContractSays(t *testing.T) {
	root, _, _, _, files := rendered(t)
	stale, err := compare(filepath.Join(root, folder), files)
	if err != nil || len(stale) > 0 {
		t.Errorf("go run ./tools/cmd/dashboards would change %v (%v)", stale, err)
	}
	entries, err := os.ReadDir(filepath.Join(root, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := files[folder+"/"+e.Name()]; !ok {
			t.Errorf("%s/%s: nobody writes it", folder, e.Name())
		}
	}
	again, err := render(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if !bytes.Equal(files[name], again[name]) {
			t.Errorf("%s is not the same twice", name)
		}
	}
}

func TestAFileThatDiffersIsNamed(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{"x/same": []byte("1"), "x/other": []byte("2"), "x/missing": []byte("3")}
	for name, text := range map[string]string{"same": "1", "other": "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stale, err := compare(dir, files)
	if err != nil || !slices.Equal(stale, []string{"x/missing", "x/other"}) {
		t.Errorf("%v, %v", stale, err)
	}
}

func TestEveryMethodIsWatched(t *testing.T) {
	_, services, board, rules, _ := rendered(t)
	if len(services) < 6 {
		t.Fatalf("%d services", len(services))
	}
	rows := map[string][]*panel{}
	for _, p := range board.Panels {
		rows[p.Title] = p.Panels
	}
	timeouts := map[string]string{}
	for _, r := range rules.Groups[1].Rules {
		timeouts[r.Labels["grpc_service"]+"/"+r.Labels["grpc_method"]] = r.Expr
	}
	for _, s := range services {
		for _, m := range s.methods {
			n := 0
			for _, p := range rows[s.name] {
				if strings.HasPrefix(p.Title, m.name+": ") {
					n++
				}
			}
			if n != 3 {
				t.Errorf("%s/%s has %d panels, want rate, errors and duration", s.name, m.name, n)
			}
			timeout := timeouts[s.name+"/"+m.name]
			if m.streams != (timeout == "") {
				t.Errorf("%s/%s: the timeout is %q", s.name, m.name, timeout)
			}
		}
	}
	if got := timeouts["payments.v1.PaymentService/Charge"]; got != "vector(5)" {
		t.Errorf("the timeout of Charge is %q, the contract says 5 s", got)
	}
}

func TestPanelsStandBesideEachOther(t *testing.T) {
	_, _, board, _, _ := rendered(t)
	ids, taken := map[int]bool{}, map[string]string{}
	for _, p := range panels(board.Panels) {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.X+g.W > width || g.W == 0 || g.H == 0 {
			t.Errorf("%s is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				at := fmt.Sprint(x, "/", y)
				if taken[at] != "" {
					t.Fatalf("%s and %s stand on each other", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
	}
}

func panels(list []*panel) []*panel {
	var all []*panel
	for _, p := range list {
		all = append(append(all, p), panels(p.Panels)...)
	}
	return all
}

func TestExpressionsUseDeclaredMetricsAndLabelsAndAllOfThem(t *testing.T) {
	_, _, board, rules, _ := rendered(t)
	used := map[string]bool{}
	known, has := map[string]bool{}, map[string][]string{}
	for _, m := range metrics() {
		known[m.name], has[m.name] = true, append([]string{"job", "instance"}, m.labels...)
		if m.says == "" {
			t.Errorf("nobody knows what %s says", m.name)
		}
	}
	var expressions []string
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				known[r.Record] = true
				of, err := parse(r.Expr)
				if err != nil {
					t.Errorf("Prometheus cannot read %s: %v", r.Expr, err)
				}
				has[r.Record] = slices.Concat(slices.Sorted(maps.Keys(r.Labels)), of.labels, has[r.Record])
			}
			if (r.Record == "") == (r.Alert == "") {
				t.Errorf("a rule has to record or to alert: %+v", r)
			}
			if r.Alert != "" && (r.For == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "") {
				t.Errorf("%s is not complete", r.Alert)
			}
			expressions = append(expressions, r.Expr)
		}
	}
	for _, p := range panels(board.Panels) {
		for _, q := range p.Targets {
			expressions = append(expressions, q.Expr)
		}
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource == nil) {
			t.Errorf("%s shows nothing", p.Title)
		}
	}
	for _, e := range expressions {
		of, err := parse(e)
		if err != nil {
			t.Errorf("Prometheus cannot read %s: %v", e, err)
			continue
		}
		for _, selector := range of.series {
			used[selector.Name] = true
			if !known[selector.Name] {
				t.Errorf("%s is not declared: %s", selector.Name, e)
			}
			for _, m := range selector.LabelMatchers {
				if m.Name != "__name__" && !slices.Contains(has[selector.Name], m.Name) {
					t.Errorf("%s has no label %s: %s", selector.Name, m.Name, e)
				}
			}
		}
		for _, label := range of.labels {
			if !slices.ContainsFunc(of.series, func(s *parser.VectorSelector) bool { return slices.Contains(has[s.Name], label) }) {
				t.Errorf("nothing has the label %s: %s", label, e)
			}
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("nobody uses %s", name)
		}
	}
}

func TestAnExpressionIsReadAsPrometheusReadsIt(t *testing.T) {
	for expr, want := range map[string]string{
		`sum by (a_b, c) (rate(x_total{y="z_z", q=~"[.]{2}"}[5m])) / on (d) group_left (e) up > 0.25 * r:s:t`: "x_total up r:s:t; a_b c d e",
		`histogram_quantile(0.9, sum by (le) (rate(m_bucket[$__rate_interval])))`:                             "m_bucket; le",
		`(a_total or vector(0)) - time() < max_over_time((b - time())[1d:5m])`:                                "a_total b; ",
	} {
		got, err := parse(expr)
		var names []string
		for _, s := range got.series {
			names = append(names, s.Name)
		}
		if text := strings.Join(names, " ") + "; " + strings.Join(got.labels, " "); err != nil || text != want {
			t.Errorf("%s: %q, %v; want %q", expr, text, err, want)
		}
	}
	for _, wrong := range []string{
		`sum(rate(a_total[5m])`, `rate(a_total)`, `rate(sum(a_total)[5m])`, `a_total{b=c}`, `histogram_quantil(0.9, a)`, `a + on b`, `a_total{b=~"("}`, `sum by (a) b >`,
	} {
		if _, err := parse(wrong); err == nil {
			t.Errorf("nobody minds %s", wrong)
		}
	}
}

// expression is what a test wants to know of an expression of PromQL.
type expression struct {
	series []*parser.VectorSelector
	labels []string // that results are grouped and matched by
}

// parse reads an expression with Prometheus's own parser, once Grafana has put the interval in.
func parse(expr string) (expression, error) {
	var of expression
	root, err := parser.ParseExpr(strings.ReplaceAll(expr, "$__rate_interval", "1m"))
	if err != nil {
		return of, err
	}
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			of.series = append(of.series, n)
		case *parser.AggregateExpr:
			of.labels = append(of.labels, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				of.labels = append(of.labels, slices.Concat(n.VectorMatching.MatchingLabels, n.VectorMatching.Include)...)
			}
		}
		return nil
	})
	slices.Sort(of.labels)
	of.labels = slices.Compact(of.labels)
	return of, nil
}
