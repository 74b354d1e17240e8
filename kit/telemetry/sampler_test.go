package telemetry

import (
	"fmt"
	"math/rand/v2"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func TestARatioDecidesAsTheSDKDoes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)).Uint64
	for _, ratio := range []float64{0, 1e-9, 0.01, 0.5, 0.999, 1} {
		t.Run(fmt.Sprint(ratio), func(t *testing.T) {
			ours, err := newSampler(ratio, func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			theirs := sdktrace.TraceIDRatioBased(ratio)
			yes := 0
			for range 20_000 {
				id := newTraceID(random)
				want := theirs.ShouldSample(sdktrace.SamplingParameters{TraceID: id}).Decision == sdktrace.RecordAndSample
				if got := ours.root(id); got != want {
					t.Fatalf("%s: %v, the SDK says %v", id, got, want)
				}
				if want {
					yes++
				}
			}
			if share := float64(yes) / 20_000; ratio > 0.001 && share < ratio*0.8 || share > ratio*1.2 {
				t.Errorf("%v are recorded", share)
			}
		})
	}
}

func TestATraceparentIsReadAsTheStandardSays(t *testing.T) {
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for text, ok := range map[string]bool{
		"00-" + id + "-" + span + "-01":                       true,
		"00-" + id + "-" + span + "-ff":                       true,
		"01-" + id + "-" + span + "-01":                       true,
		"01-" + id + "-" + span + "-01-more":                  true,
		"00-" + id + "-" + span + "-01-more":                  false,
		"01-" + id + "-" + span + "-01more":                   false,
		"ff-" + id + "-" + span + "-01":                       false,
		"00-00000000000000000000000000000000-" + span + "-01": false,
		"00-" + id + "-0000000000000000-01":                   false,
		"00-0AF7651916CD43DD8448EB211C80319C-" + span + "-01": false,
		"00-" + id + "-" + span + "-0x":                       false,
		"00-" + id + "-" + span:                               false,
		"00_" + id + "-" + span + "-01":                       false,
		"":                                                    false,
		"00-" + id + "-" + span + "-0":                        false,
	} {
		var tr Trace
		if got := tr.parse(text); got != ok {
			t.Errorf("%q: %v, want %v", text, got, ok)
		}
		if ok {
			if got := format(tr.id, tr.parent, tr.flags&trace.FlagsSampled); got != "00-"+id+"-"+span+"-01" {
				t.Errorf("%q goes on as %q", text, got)
			}
		} else if tr.id.IsValid() {
			t.Errorf("%q leaves a trace", text)
		}
	}
}
