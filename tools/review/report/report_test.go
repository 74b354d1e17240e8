package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/consumers"
	"github.com/concordat-dev/concordat/tools/review/report"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

var update = flag.Bool("update", false, "write testdata anew")

// today is the day on which approvals are judged.
var today = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

const order = `syntax = "proto3";

package shop.v1;

// OrderService takes orders.
service OrderService {
  // Places an order.
  rpc PlaceOrder(PlaceOrderRequest) returns (PlaceOrderResponse);
}

// PlaceOrderRequest is an order.
message PlaceOrderRequest {
  // What is ordered.
  string article = 1;

  // How many.
  int32 quantity = 2;

  // Who pays.
  string payer = 3;

  // The card. Deprecated: use payer instead. Sunset: 2027-06-30.
  string card = 4 [
    deprecated = true,
    debug_redact = true
  ];

  // How it is sent.
  Shipping shipping = 5;
}

// PlaceOrderResponse is the answer.
message PlaceOrderResponse {
  // The order.
  string order_id = 1;
}

// Shipping is a way to send things.
enum Shipping {
  // Nobody said.
  SHIPPING_UNSPECIFIED = 0;

  // By land.
  SHIPPING_LAND = 1;
}
`

// edited makes edits of a text, each of which must have something to change.
func edited(t *testing.T, text string, edits ...string) string {
	t.Helper()
	for n := 0; n < len(edits); n += 2 {
		if !strings.Contains(text, edits[n]) {
			t.Fatalf("nothing to change: %q", edits[n])
		}
		text = strings.Replace(text, edits[n], edits[n+1], 1)
	}
	return text
}

// rich returns the report of a change with something of everything: breaks, security, care and notes; what was approved,
// what is hidden, what callers still use; approvals of every kind; two baselines; consumers that break, and unknown ones.
func rich(t *testing.T) *review.Report {
	t.Helper()
	tr := repotest.New(t)
	tr.Write("buf.yaml", "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use:\n    - FILE\n  except:\n    - FIELD_SAME_JSON_NAME\n")
	tr.Write("proto/shop/v1/order.proto", order)
	release := tr.Commit("the release")
	tr.Write("proto/baselines.yaml", "release: "+release+"\n")
	was := edited(t, order, "string article = 1", "string sku = 1")
	tr.Write("proto/shop/v1/order.proto", was)
	approve(t, tr, "acme.v1.Old.absorbed")
	tr.Commit("renamed since the release")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	tr.Write("proto/shop/v1/order.proto", edited(t, was,
		"int32 quantity = 2", "int64 quantity = 2",
		"  // Who pays.\n  string payer = 3;\n\n", "",
		"debug_redact = true", "debug_redact = false",
		"SHIPPING_LAND = 1;", "SHIPPING_LAND = 1;\n\n  // By air.\n  SHIPPING_AIR = 2;",
		"string order_id = 1;", "string order_id = 1;\n\n  // When it comes.\n  string arrives_at = 2;",
		"// OrderService takes orders.", "// OrderService takes orders, at any time."))
	tr.Write("buf.yaml", "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use:\n    - FILE\n  except:\n    - FIELD_SAME_JSON_NAME\n    - FIELD_SAME_DEFAULT\n")
	usage := filepath.Join(t.TempDir(), "usage.json")
	if err := os.WriteFile(usage, []byte(`{"version": 1, "service": "shop", "since": "2026-11-01T00:00:00Z", "sampled_one_in": 10, "dropped": 3, "entries": [{"caller": "web", "method": "/shop.v1.OrderService/PlaceOrder",
		"direction": "request", "message": "shop.v1.PlaceOrderRequest", "field": "payer", "count": 12, "last_seen": "2026-12-01T09:00:00Z"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	buf, err := review.FindBuf(t.Context(), filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	buf.Dir = tr.Dir
	run := func() *review.Report {
		r, err := review.Run(t.Context(), buf, review.Options{Dir: tr.Dir, Now: today, Usage: []string{usage}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, f := range run().Findings {
		if f.Rule == "FIELD_SAME_NAME" {
			if _, err := review.Approve(tr.Dir, &review.Report{Findings: []*review.Finding{f}}, approver, today, f.Fingerprint); err != nil {
				t.Fatal(err)
			}
		}
	}
	approve(t, tr, "acme.v1.Old.stale")
	r := run()
	r.Head, r.Took = strings.Repeat("c", 40)+"+", 1500*time.Millisecond
	for n, b := range r.Baselines {
		b.Commit = strings.Repeat(string(rune('a'+n)), 40)
	}
	for _, f := range r.Findings {
		if len(f.Found) == 2 {
			f.Found[1] = "usage.json" // as a person would name it
		}
	}
	concern(r)
	return r
}

var approver = review.Approver{Reason: "Nobody reads it yet.", Owner: "@shop/contract", Expires: today.AddDate(0, 0, 30)}

// approve writes an approval of a change that is not there.
func approve(t *testing.T, tr repotest.Tree, element string) {
	t.Helper()
	f := &review.Finding{Finding: &rules.Finding{Rule: "FIELD_SAME_TYPE", Level: rules.Break, Kind: schema.Field, Element: element, Attr: "type", Old: "int32", New: "string", Baseline: "sha256:0", Text: "was another type"}}
	f.Fingerprint = rules.Fingerprint(f.Rule, f.Element, f.Attr, f.Old, f.New, f.Baseline)
	if _, err := review.Approve(tr.Dir, &review.Report{Findings: []*review.Finding{f}}, approver, today, f.Fingerprint); err != nil {
		t.Fatal(err)
	}
}

// concern gives a report the consumers that an analysis of Go code would find.
func concern(r *review.Report) {
	r.Analysed = &review.Analysed{Modules: []string{"example.com/shop", "example.com/web"}, Packages: 7, Problems: []consumers.Problem{{Where: "example.com/web", What: "does not compile, and is analysed as far as it goes"}},
		Built: map[string][]consumers.Problem{"release": {{Where: "example.com/old", What: "does not load"}}}, LeftOut: []string{"stock/stock_plan9.go"}}
	use := func(path string, line int, kind consumers.Kind, breaks bool, err string) review.Use {
		return review.Use{Use: consumers.Use{Element: "shop.v1.PlaceOrderRequest.quantity", Kind: kind, Path: path, Line: line, Column: 3, Module: "example.com/shop", Error: err}, Owners: []string{"@shop/" + strings.Split(path, "/")[0]}, Breaks: breaks}
	}
	test, leftOut := use("stock/stock_test.go", 3, consumers.Reads, true, ""), use("stock/stock_plan9.go", 5, consumers.Perhaps, false, "")
	test.Test, leftOut.LeftOut = true, true
	for _, f := range r.Findings {
		switch f.Rule {
		case "FIELD_SAME_TYPE":
			f.Consumers = review.Consumers{Verdict: review.BreaksCompilation, Uses: []review.Use{
				use("stock/stock.go", 42, consumers.Reads, true, "cannot use r.GetQuantity() (value of type int64) as int32 value in assignment"),
				use("web/form.go", 7, consumers.Writes, false, ""), test, leftOut,
			}, Built: []review.Use{use("batch/batch.go", 9, consumers.Literal, false, "")}}
		case "FIELD_NO_DELETE":
			f.Consumers = review.Consumers{Verdict: review.Unknown, Why: "example.com/web: does not compile, and is analysed as far as it goes"}
		case "REDACT_REMOVED":
			f.Consumers = review.Consumers{Verdict: review.UnusedHere}
		case "FIELD_NOT_RESERVED":
			f.Consumers = review.Consumers{Verdict: review.Unaffected, Uses: []review.Use{use("web/form.go", 12, consumers.Constant, false, "")}}
		}
	}
}

// Every format of one report stands in testdata: who changes a format sees what its readers will see.
func TestEveryFormatOfARichReport(t *testing.T) {
	r := rich(t)
	if r.Failures() == 0 {
		t.Fatal("the report has nothing to say")
	}
	for name, file := range map[string]string{
		"text": "rich.txt", "color": "rich.color.txt", "markdown": "rich.md", "json": "rich.json", "sarif": "rich.sarif", "github": "rich.github.txt", "html": "rich.html", "changelog": "rich.changelog.md",
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := report.Formats()[name](&got, r); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", file)
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s differs (-update writes it anew):\n%s", file, difference(string(want), got.String()))
			}
		})
	}
	if len(report.Formats()) != 8 {
		t.Errorf("there are %d formats, and not all have a file", len(report.Formats()))
	}
}

// difference shows the first line that differs.
func difference(want, got string) string {
	wanted, lines := strings.Split(want, "\n"), strings.Split(got, "\n")
	for n := range lines {
		if n >= len(wanted) || lines[n] != wanted[n] {
			was := "the end"
			if n < len(wanted) {
				was = wanted[n]
			}
			return "got  " + lines[n] + "\nwant " + was
		}
	}
	return "it ends too early"
}

// The format is documented member by member: one that is new is added there.
func TestTheDocsNameEveryMemberOfTheJSON(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "evolving-the-contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## The JSON format")
	section, _, _ = strings.Cut(section, "\n## ")
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || seen[of] || of == reflect.TypeFor[time.Time]() {
			return
		}
		seen[of] = true
		for n := range of.NumField() {
			field := of.Field(n)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || name == "-" {
				continue
			}
			if name != "" && !regexp.MustCompile("`\\.?([a-z]+\\.)*"+name+"(\\[\\])?`").MatchString(section) {
				t.Errorf("the docs do not name %s of %s", name, of)
			}
			walk(field.Type)
		}
	}
	walk(reflect.TypeFor[review.Report]())
	if len(seen) < 8 {
		t.Errorf("only %d types were looked at", len(seen))
	}
}
