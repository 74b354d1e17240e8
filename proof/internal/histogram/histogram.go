// Package histogram counts durations in buckets whose width grows with the value, as HdrHistogram does, so that any
// number of them fits into 30 kB and a quantile is wrong by less than one part in 64.
package histogram

import (
	"math/bits"
	"time"
)

// Within a power of two there are 64 buckets; what is below 128 ns has a bucket for each nanosecond.
const (
	subBits = 6
	sub     = 1 << subBits
	buckets = (64 - subBits) * sub
)

// Histogram counts durations. The zero value is empty and ready. It is not safe for concurrent use: count in one for
// each goroutine and Add them up.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
}

// Record counts one duration; one below zero counts as zero.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
}

// Add counts all that o has counted.
func (h *Histogram) Add(o *Histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns the duration that a share q of all (0 to 1) does not exceed, rounded up to the end of its bucket, and
// zero for an empty histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) {
		rank++
	}
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return time.Duration(last(i))
		}
	}
	return 0 // not reached: the counts add up to n
}

// bucket returns the index of the bucket of v.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// last returns the greatest value of bucket i.
func last(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return uint64(i-shift<<subBits+1)<<shift - 1
}
