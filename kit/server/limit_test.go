package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/policy"
)

func TestAFloodOfKeysNeitherGrowsTheMemoryNorForgetsWhoIsUsedUp(t *testing.T) {
	const most = 1000
	b := newBuckets(policy.Rate{PerSecond: 0.001, Burst: 5}, most)
	now := time.Unix(1_700_000_000, 0)
	for range 5 {
		if wait := b.take("victim", now); wait != 0 {
			t.Fatalf("wait %s within the burst", wait)
		}
	}
	for i := range 20 * most {
		b.take(fmt.Sprintf("flood-%d", i), now)
		if len(b.byKey) > most {
			t.Fatalf("%d buckets, want at most %d", len(b.byKey), most)
		}
	}
	if b.take("victim", now) == 0 {
		t.Error("the flood has won a used-up key a full bucket")
	}
}

func TestAnIPv6CallerHasOneBucketForItsNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::1%eth0": "2001:db8:1:2::/64",
		"::ffff:198.51.100.7":  "198.51.100.7",
		"198.51.100.7":         "198.51.100.7",
		"bufconn":              "bufconn",
	} {
		if got := network(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
