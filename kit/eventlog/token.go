package eventlog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// TokenLength is the length of every resume token, in characters of base64url.
const TokenLength = 60

// The parts of a token, in order. The sum tells a token that was damaged from one that another log gave out, which is
// whole but means nothing here; only the MAC says that it may be believed.
const (
	tokenVersion = 1

	epochSize = 16
	keySize   = 32
	macSize   = 16

	seqAt     = 1 + epochSize
	macAt     = seqAt + 8
	sumAt     = macAt + macSize
	tokenSize = sumAt + crc32.Size
)

// tokenMAC begins what the MAC is made of, so that the key serves nothing else by accident.
const tokenMAC = "concordat resume token\x00"

// tokenEncoding has no bits to spare in a token of this size, so that a position has one spelling.
var tokenEncoding = base64.RawURLEncoding

// signer makes and reads the tokens of one log.
type signer struct {
	epoch [epochSize]byte
	key   [keySize]byte
}

// token returns the token of the position right after the event with this sequence number.
func (s *signer) token(scope string, seq int64) string {
	var raw [tokenSize]byte
	raw[0] = tokenVersion
	copy(raw[1:], s.epoch[:])
	binary.BigEndian.PutUint64(raw[seqAt:], uint64(seq))
	s.mac(raw[macAt:macAt], raw[:macAt], scope)
	binary.BigEndian.PutUint32(raw[sumAt:], crc32.ChecksumIEEE(raw[:sumAt]))
	return tokenEncoding.EncodeToString(raw[:])
}

// parse returns the position of a token. It returns ErrBadToken, or foreign for a token of another epoch.
func (s *signer) parse(scope, token string) (seq int64, foreign bool, err error) {
	var raw [tokenSize]byte
	if len(token) != TokenLength {
		return 0, false, ErrBadToken
	}
	if n, err := tokenEncoding.Decode(raw[:], []byte(token)); err != nil || n != tokenSize {
		return 0, false, ErrBadToken
	}
	if raw[0] != tokenVersion || crc32.ChecksumIEEE(raw[:sumAt]) != binary.BigEndian.Uint32(raw[sumAt:]) {
		return 0, false, ErrBadToken
	}
	if [epochSize]byte(raw[1:seqAt]) != s.epoch {
		return 0, true, nil
	}
	if want := s.mac(nil, raw[:macAt], scope); !hmac.Equal(want, raw[macAt:sumAt]) {
		return 0, false, ErrBadToken
	}
	seq = int64(binary.BigEndian.Uint64(raw[seqAt:]))
	if seq < 0 {
		return 0, false, ErrBadToken
	}
	return seq, false, nil
}

// mac appends the MAC of a position in a scope to dst.
func (s *signer) mac(dst, position []byte, scope string) []byte {
	h := hmac.New(sha256.New, s.key[:])
	h.Write([]byte(tokenMAC))
	h.Write(position) // of fixed length, so that nothing of it can pass for the scope
	h.Write([]byte(scope))
	var sum [sha256.Size]byte
	return append(dst, h.Sum(sum[:0])[:macSize]...)
}

// Renew gives the log of a database that was restored from a backup a new epoch: from then on the tokens that were given out
// before, among them those for events that are lost, are too old. A log that is open keeps the epoch that it has read.
func Renew(ctx context.Context, tx *sqldb.Tx, rand io.Reader) error {
	var epoch [epochSize]byte
	if _, err := io.ReadFull(rand, epoch[:]); err != nil {
		return fmt.Errorf("make the epoch of the event log: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE event_log_meta SET epoch = $1 WHERE id = 1`, epoch[:]); err != nil {
		return fmt.Errorf("renew the epoch of the event log: %w", err)
	}
	return nil
}
