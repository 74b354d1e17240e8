// Package seal makes opaque texts that only their maker can make, for page tokens: a client can neither forge
// one nor use one outside of the scope that it was given for. Sealed is not secret: the content can be decoded.
package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// ErrBroken says that a text was not sealed by this key for this scope.
var ErrBroken = errors.New("seal: broken")

const macSize = 16 // bytes of HMAC-SHA256 kept; RFC 2104 section 5 asks for at least half

// Sealer seals and opens with one key. It is safe for concurrent use.
type Sealer struct {
	key []byte
}

// New returns a Sealer for a random key of at least 16 bytes.
func New(key []byte) *Sealer { return &Sealer{key: append([]byte(nil), key...)} }

// Seal returns content as URL-safe text that opens only under the same scope.
func (s *Sealer) Seal(scope string, content []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(s.mac(scope, content), content...))
}

// Open returns what was sealed, or ErrBroken.
func (s *Sealer) Open(scope, text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < macSize {
		return nil, ErrBroken
	}
	content := raw[macSize:]
	if !hmac.Equal(raw[:macSize], s.mac(scope, content)) {
		return nil, ErrBroken
	}
	return content, nil
}

func (s *Sealer) mac(scope string, content []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(scope)))
	h.Write(n[:])
	h.Write([]byte(scope))
	h.Write(content)
	return h.Sum(nil)[:macSize]
}
