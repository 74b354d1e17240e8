package server

import (
	"math"
	"strconv"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
)

// pushbackTrailer tells grpc's clients, which do not read RetryInfo, when to repeat a call (gRFC A6).
const pushbackTrailer = "grpc-retry-pushback-ms"

// pushback returns the trailer of a call that ends in f: the milliseconds to wait where f says how long, and -1 where a
// client would repeat a call that it should not: one that is repeated only when told, with nothing to tell, or one whose
// time will be over by then, whose caller is better served by f now. "" means no trailer.
func pushback(c *call, f *fault.Fault) string {
	after := f.RetryAfter()
	if c.method != nil && c.method.Repeats(f.Kind()) {
		if after == 0 && policy.OnlyWhenTold(f.Kind()) {
			return "-1"
		}
		if end, ok := c.Deadline(); ok && after > 0 && after >= time.Until(end) {
			return "-1"
		}
	}
	if after == 0 {
		return ""
	}
	ms := (after + time.Millisecond - 1) / time.Millisecond
	return strconv.FormatInt(min(int64(ms), math.MaxInt32), 10)
}
