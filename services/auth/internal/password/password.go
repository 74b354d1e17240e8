// Package password hashes passwords with argon2id (RFC 9106) and keeps the hashes in the PHC string format, which names
// its parameters, so that they can be raised later and old hashes still verify.
//
// What is promised: a comparison takes the same time whatever the result; no more than a fixed number of hashes is
// computed at once, so that any number of sign-ins cannot exhaust the memory; whoever waits for a turn waits no longer
// than its context; and when too many wait, the next one is told so at once.
package password

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Params are what a hash costs.
type Params struct {
	// MemoryKiB is the memory of one hash, in KiB.
	MemoryKiB uint32
	// Passes is how often the memory is walked through.
	Passes uint32
	// Lanes is how many threads one hash takes.
	Lanes uint8
}

// Recommended returns the parameters of new hashes: 19 MiB, two passes, one lane (OWASP's first choice).
func Recommended() Params { return Params{MemoryKiB: 19 * 1024, Passes: 2, Lanes: 1} }

// The sizes of what is random in a hash, and of the hash itself.
const (
	saltBytes = 16
	sumBytes  = 32
)

// The largest parameters that are read from a stored hash: beyond them the row is damaged, and following it would hurt.
const (
	maxMemoryKiB = 1 << 20
	maxPasses    = 64
	maxSumBytes  = 128
)

// Waiting is how many hashes a service lets wait for each that is computed at once: about half a second's worth. More would
// wait longer than it takes their callers to give up, and starve those who come after.
const Waiting = 16

// ErrBusy: more passwords are being hashed than can be in time. Nothing was begun.
var ErrBusy = fault.New(fault.ResourceExhausted, "OVERLOADED", "too many people are signing in: try again in a moment").
	WithDomain(fault.Domain).WithRetryAfter(time.Second)

// Argon2id hashes passwords. It is safe for concurrent use. Make it with New.
type Argon2id struct {
	params Params
	random io.Reader
	turns  chan struct{} // one token for each hash under way
	// waiting counts the hashes under way and those that wait for their turn.
	waiting atomic.Int64
	most    int64 // how many waiting may be
	decoy   hash  // what a password without a hash is compared with
}

var _ auth.Passwords = (*Argon2id)(nil)

// New returns a hasher that makes hashes with params and computes as many at once as Go runs threads; for each of those,
// waiting are let wait, and further ones get ErrBusy. Random is the source of the salts and must be cryptographically
// strong.
func New(params Params, waiting int, random io.Reader) (*Argon2id, error) {
	if err := params.valid(); err != nil {
		return nil, err
	}
	a := &Argon2id{params: params, random: random, turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
	a.most = int64((1 + waiting) * cap(a.turns))
	a.decoy = hash{params: params, salt: make([]byte, saltBytes), sum: make([]byte, sumBytes)}
	for _, part := range [][]byte{a.decoy.salt, a.decoy.sum} {
		if _, err := io.ReadFull(random, part); err != nil {
			return nil, fmt.Errorf("make a decoy: %w", err)
		}
	}
	return a, nil
}

func (p Params) valid() error {
	switch {
	case p.Lanes < 1, p.Passes < 1, p.Passes > maxPasses:
	case p.MemoryKiB < 8*uint32(p.Lanes), p.MemoryKiB > maxMemoryKiB:
	default:
		return nil
	}
	return fmt.Errorf("argon2id parameters out of range: m=%d,t=%d,p=%d", p.MemoryKiB, p.Passes, p.Lanes)
}

// Hash returns the hash of a password with a fresh salt, as "$argon2id$v=19$m=…,t=…,p=…$salt$sum".
func (a *Argon2id) Hash(ctx context.Context, password string) (string, error) {
	h := hash{params: a.params, salt: make([]byte, saltBytes)}
	if _, err := io.ReadFull(a.random, h.salt); err != nil {
		return "", fmt.Errorf("make salt: %w", err)
	}
	sum, err := a.compute(ctx, password, h.params, h.salt, sumBytes)
	if err != nil {
		return "", err
	}
	h.sum = sum
	return h.String(), nil
}

// Verify compares a password with a hash that Hash made, now or with other parameters. An empty hash never matches and
// takes as long as a hash with the parameters of today.
func (a *Argon2id) Verify(ctx context.Context, password, encoded string) (auth.Verdict, error) {
	h := a.decoy
	if encoded != "" {
		var err error
		if h, err = parse(encoded); err != nil {
			return auth.Verdict{}, err
		}
	}
	sum, err := a.compute(ctx, password, h.params, h.salt, uint32(len(h.sum)))
	if err != nil {
		return auth.Verdict{}, err
	}
	match := subtle.ConstantTimeCompare(sum, h.sum) == 1 && encoded != ""
	outdated := h.params != a.params || len(h.salt) != saltBytes || len(h.sum) != sumBytes
	return auth.Verdict{Match: match, Outdated: match && outdated}, nil
}

// compute runs the function once it is its turn.
func (a *Argon2id) compute(ctx context.Context, password string, p Params, salt []byte, size uint32) ([]byte, error) {
	if err := ctx.Err(); err != nil { // a free turn must not win over a context that has ended
		return nil, err
	}
	if a.waiting.Add(1) > a.most {
		a.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer a.waiting.Add(-1)
	select {
	case a.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a turn to hash: %w", ctx.Err())
	}
	defer func() { <-a.turns }()
	return argon2.IDKey([]byte(password), salt, p.Passes, p.MemoryKiB, p.Lanes, size), nil
}

// hash is a stored hash, taken apart.
type hash struct {
	params Params
	salt   []byte
	sum    []byte
}

// errFormat says that a stored hash is damaged. It does not show it.
var errFormat = errors.New("not an argon2id hash in PHC string format")

// String returns the hash in PHC string format.
func (h hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.params.MemoryKiB, h.params.Passes, h.params.Lanes, b64.EncodeToString(h.salt), b64.EncodeToString(h.sum))
}

// parse takes a hash apart. It accepts what String writes and nothing else.
func parse(encoded string) (hash, error) {
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 {
		return hash{}, errFormat
	}
	var h hash
	var version int
	if _, err := fmt.Sscanf(parts[2]+"$"+parts[3], "v=%d$m=%d,t=%d,p=%d", &version, &h.params.MemoryKiB, &h.params.Passes, &h.params.Lanes); err != nil {
		return hash{}, errFormat
	}
	var saltErr, sumErr error
	h.salt, saltErr = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.sum, sumErr = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	switch {
	case saltErr != nil, sumErr != nil, version != argon2.Version, h.String() != encoded:
		return hash{}, errFormat
	case len(h.salt) < 8, len(h.sum) < 16, len(h.sum) > maxSumBytes:
		return hash{}, errFormat
	}
	return h, h.params.valid()
}
