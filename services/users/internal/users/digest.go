package users

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
)

// Digest is what binds a request id to its request.
type Digest [sha256.Size]byte

// digester makes the digest of a request: SHA-256 over its method and fields in a fixed form, which must never change for a request
// that could be made before. Each field that is not empty adds its number, its length and its bytes; so a field that is added
// later, under a number of its own, leaves the digests of requests without it as they are.
type digester struct{ h hash.Hash }

func newDigest(method string) digester {
	d := digester{sha256.New()}
	d.h.Write([]byte(method + "\x00"))
	return d
}

func (d digester) sum() Digest { return Digest(d.h.Sum(nil)) }

func (d digester) text(number uint32, text string) {
	if text == "" {
		return
	}
	var head [12]byte
	binary.BigEndian.PutUint32(head[:4], number)
	binary.BigEndian.PutUint64(head[4:], uint64(len(text)))
	d.h.Write(head[:])
	d.h.Write([]byte(text))
}

func (d digester) flag(number uint32, set bool) {
	if set {
		d.text(number, "\x01")
	}
}

// list adds texts as one field. An empty one counts, and no list is none.
func (d digester) list(number uint32, texts []string) {
	var all []byte
	for _, text := range texts {
		all = binary.BigEndian.AppendUint64(all, uint64(len(text)))
		all = append(all, text...)
	}
	d.text(number, string(all))
}

func (d digester) labels(number uint32, labels map[string]string) {
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		texts = append(texts, key, labels[key])
	}
	d.list(number, texts)
}

func (d digester) address(number uint32, a *Address) {
	if a != nil {
		d.list(number, append([]string{a.CountryCode, a.Locality, a.AdministrativeArea, a.PostalCode}, a.Lines...))
	}
}
