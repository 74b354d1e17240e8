package payments

import (
	"fmt"
	"maps"
	"testing"
)

// The digests are stored: one that comes out otherwise would refuse the repetition of every call made before.
func TestTheDigestsAreTheSameForEver(t *testing.T) {
	t.Parallel()
	charge := Charge{
		Order: "X1", Customer: "0197a000-0000-7000-8000-00000000000a", Amount: 150, Currency: "EUR", Token: "tok_ok", AuthorizeOnly: true,
		Metadata: map[string]string{"b": "2", "a": "1", "c": ""},
	}
	for name, row := range map[string]struct {
		got  Digest
		want string
	}{
		"charge":       {charge.digest(), "46dd9e97a9ccae94701218ab51dfbbb3056fd4ad7b630e064431ed5c6330af7b"},
		"capture":      {changeDigest(methodCapture, "p", 7, true), "b35706370d3f8aa4c7297abf3e26f090a99257dc8a07e44886eb186ce6399e17"},
		"open account": {OpenAccount{Limited: true, Limit: 5}.digest(), "ce24c32ae792079c3ecc5369c0f7f8f22a42fb6d4e532cb8c34e48ece783bbb8"},
		"transfer":     {transferDigest([]TransferOperation{{Kind: "MOVE", Legs: []TransferLeg{{"a", 1}, {"b", -1}}}}, nil), "b74ac70626ae18387232a0735006deb032f6cbe28be99a7a4ccf18802ddd7809"},
	} {
		if got := fmt.Sprintf("%x", row.got); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
	if got := operationKey(Key{"caller", "charge", "k"}); got != "0cf86d392e70b0202a9c5a99cfb37771" {
		t.Errorf("the key of the processor: %s", got)
	}
	for range 20 { // the order in which a map is walked does not count
		again := charge
		again.Metadata = maps.Clone(charge.Metadata)
		if again.digest() != charge.digest() {
			t.Fatal("the digest of an equal charge is another one")
		}
	}
	empty, none := charge, charge
	none.Metadata, empty.Metadata = nil, map[string]string{}
	if none.digest() != empty.digest() {
		t.Error("no metadata and empty metadata are different content")
	}
}
