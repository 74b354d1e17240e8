package eventlog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

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

// signer makes and reads the tokens of one log. It is safe for concurrent use.
type signer struct {
	epoch   [epochSize]byte
	key     [keySize]byte
	benches sync.Pool // of *bench; they have the key
}

// bench is what making a token takes beside the token. Each subscriber gets one with each event, so that it is worth
// keeping: anew, with the key to take in, it costs more than to encode the event.
type bench struct {
	hash  hash.Hash
	raw   [tokenSize]byte
	sum   [sha256.Size]byte
	input []byte
	text  [TokenLength]byte
}

// bench returns a bench for one goroutine, who puts it back.
func (s *signer) bench() *bench {
	if b, ok := s.benches.Get().(*bench); ok {
		return b
	}
	return &bench{hash: hmac.New(sha256.New, s.key[:])}
}

// token returns the token of the position right after the event with this sequence number.
func (s *signer) token(scope string, seq int64) string {
	b := s.bench()
	defer s.benches.Put(b)
	b.raw[0] = tokenVersion
	copy(b.raw[1:], s.epoch[:])
	binary.BigEndian.PutUint64(b.raw[seqAt:], uint64(seq))
	copy(b.raw[macAt:sumAt], b.mac(scope))
	binary.BigEndian.PutUint32(b.raw[sumAt:], crc32.ChecksumIEEE(b.raw[:sumAt]))
	tokenEncoding.Encode(b.text[:], b.raw[:])
	return string(b.text[:])
}

// parse returns the position of a token. It returns ErrBadToken, or foreign for a token of another epoch.
func (s *signer) parse(scope, token string) (seq int64, foreign bool, err error) {
	if len(token) != TokenLength {
		return 0, false, ErrBadToken
	}
	b := s.bench()
	defer s.benches.Put(b)
	raw := &b.raw
	if n, err := tokenEncoding.Decode(raw[:], []byte(token)); err != nil || n != tokenSize {
		return 0, false, ErrBadToken
	}
	if raw[0] != tokenVersion || crc32.ChecksumIEEE(raw[:sumAt]) != binary.BigEndian.Uint32(raw[sumAt:]) {
		return 0, false, ErrBadToken
	}
	if [epochSize]byte(raw[1:seqAt]) != s.epoch {
		return 0, true, nil
	}
	if !hmac.Equal(b.mac(scope), raw[macAt:sumAt]) {
		return 0, false, ErrBadToken
	}
	seq = int64(binary.BigEndian.Uint64(raw[seqAt:]))
	if seq < 0 {
		return 0, false, ErrBadToken
	}
	return seq, false, nil
}

// mac returns the MAC of the position that is in raw, in a scope. It is good until the bench is used again.
func (b *bench) mac(scope string) []byte {
	b.input = append(append(b.input[:0], tokenMAC...), b.raw[:macAt]...) // of fixed length, so that nothing of it can pass for the scope
	b.input = append(b.input, scope...)
	b.hash.Reset()
	b.hash.Write(b.input)
	return b.hash.Sum(b.sum[:0])[:macSize]
}

// Renew gives the log of a database that was restored from a backup a new epoch: from then on the tokens that were
// given out before, among them those for events that are lost, are too old. A log that is open keeps the epoch that it
// has read.
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
