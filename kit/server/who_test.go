package server_test

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

func TestWhatAClientSaysItIsStandsInTheLineAndTheSpanAndInNoMetric(t *testing.T) {
	const good, bad = "orders/v1.2.3", "orders v1.2.3"
	tt := tell(t, echo.Handlers{})
	for _, said := range []string{good, bad} {
		ctx := with(t.Context(), "traceparent", sampled, telemetry.ClientHeader, said)
		if err := tt.AsService("orders").Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
			t.Fatal(err)
		}
	}
	spans := tt.end()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	for i, want := range []string{good, ""} {
		got := ""
		for _, a := range spans[i].Attributes {
			if a.Key == attribute.Key("concordat.client") {
				got = a.Value.AsString()
			}
		}
		if got != want {
			t.Errorf("span %d says %q, want %q", i, got, want)
		}
	}
	if log := tt.Log.String(); strings.Count(log, `"peer":"orders","client":"`+good+`"`) != 1 || strings.Contains(log, bad) {
		t.Errorf("the log says\n%s", log)
	}
	for series := range tt.series() {
		if strings.Contains(series, "v1.2.3") {
			t.Errorf("a metric has it: %s", series)
		}
	}
}
