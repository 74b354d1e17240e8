package id_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/id"
)

func TestIDsAreVersion7CarryTheTimeAndAscendWhileTheClockStands(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123)
	next := id.Generator(clocktest.New(now), rand.Reader)
	last := ""
	for range 10_000 { // more than the 4,096 of one millisecond
		got := next()
		u, err := uuid.Parse(got)
		if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 {
			t.Fatalf("%q: version %v variant %v err %v", got, u.Version(), u.Variant(), err)
		}
		if got <= last {
			t.Fatalf("%q does not follow %q", got, last)
		}
		last = got
	}
	first, _ := uuid.Parse(id.Generator(clocktest.New(now), rand.Reader)())
	sec, nsec := first.Time().UnixTime()
	if got := time.Unix(sec, nsec).UnixMilli(); got != now.UnixMilli() {
		t.Errorf("id carries %d ms, want %d", got, now.UnixMilli())
	}
}
