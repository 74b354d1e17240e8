package histogram_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/histogram"
)

func TestAQuantileIsWithinOnePartIn64OfTheTruth(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() time.Duration{
		"nanoseconds":         func() time.Duration { return time.Duration(random.IntN(300)) },
		"a service under way": func() time.Duration { return time.Duration(random.ExpFloat64() * float64(time.Millisecond)) },
		"from 1 ns to 1 h":    func() time.Duration { return time.Duration(1) << random.IntN(42) },
	} {
		t.Run(name, func(t *testing.T) {
			var h histogram.Histogram
			all := make([]time.Duration, 20_000)
			for i := range all {
				all[i] = draw()
				h.Record(all[i])
			}
			slices.Sort(all)
			for _, q := range []float64{0.001, 0.25, 0.5, 0.99, 0.9999, 1} {
				rank := max(int(q*float64(len(all))+0.999999), 1)
				want := all[rank-1]
				got := h.Quantile(q)
				if got < want || float64(got) > float64(want)*(1+1.0/64)+1 {
					t.Errorf("quantile %v is %d, want %d to 1/64 more", q, got, want)
				}
			}
		})
	}
}

func TestEmptyNegativeAndHuge(t *testing.T) {
	var h histogram.Histogram
	if got := h.Quantile(0.99); got != 0 || h.Count() != 0 {
		t.Errorf("empty: quantile %v of %d", got, h.Count())
	}
	h.Record(-time.Second)
	if got := h.Quantile(1); got != 0 {
		t.Errorf("below zero counts as %v, want 0", got)
	}
	h.Record(1<<63 - 1)
	if got := h.Quantile(1); got != 1<<63-1 {
		t.Errorf("the longest duration comes back as %d", got)
	}
}

func TestAddCountsBoth(t *testing.T) {
	var a, b histogram.Histogram
	for range 99 {
		a.Record(time.Millisecond)
	}
	b.Record(time.Second)
	a.Add(&b)
	if a.Count() != 100 {
		t.Errorf("count is %d, want 100", a.Count())
	}
	if p99, most := a.Quantile(0.99), a.Quantile(1); p99 > 2*time.Millisecond || most < time.Second {
		t.Errorf("p99 %v, max %v", p99, most)
	}
}
