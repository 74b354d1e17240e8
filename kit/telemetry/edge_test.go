package telemetry_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/concordat-dev/concordat/kit/telemetry"
)

func TestServicesOfOneProcessCountEachTheirOwn(t *testing.T) {
	var log bytes.Buffer
	tele, err := telemetry.New(t.Context(), config(&log))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"users", "payments"} {
		s, err := tele.Service(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Counter("things_total", "Things.", "kind")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Add("small")
		c.Add("small")
		if _, err := s.Counter("things_total", "Things.", "kind"); err == nil {
			t.Errorf("%s counts the same twice", name)
		}
		if err := s.Collect(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "size", Help: "Size."}, func() float64 { return float64(len(name)) })); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for range 2 { // two connections of one service
			if _, err := s.Client("127.0.0.1:1"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	telemetry.Counter{}.Add("nobody counts")
	const want = `
# HELP size Size.
# TYPE size gauge
size{service="payments"} 8
size{service="users"} 5
# HELP things_total Things.
# TYPE things_total counter
things_total{kind="small",service="payments"} 2
things_total{kind="small",service="users"} 2
`
	if err := testutil.GatherAndCompare(tele.Registry(), strings.NewReader(want), "size", "things_total"); err != nil {
		t.Error(err)
	}
}

func TestReasonsAreThoseOfThePathWhateverThePackage(t *testing.T) {
	for _, pkg := range []string{"", "nobody.v1", "policy.v1"} {
		reasons := telemetry.Reasons(pkg)
		if _, ok := reasons["INVALID_REQUEST"]; !ok {
			t.Errorf("%q has no INVALID_REQUEST", pkg)
		}
		if _, ok := reasons["EMAIL_TAKEN"]; ok {
			t.Errorf("%q has the reason of another package", pkg)
		}
	}
}
