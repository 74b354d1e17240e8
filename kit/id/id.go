// Package id makes identifiers: UUIDv7 (RFC 9562 section 5.7), which sort by the time at which they were made,
// from a clock and a source of randomness that are given.
package id

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/concordat-dev/concordat/kit/clock"
)

// buffered is how much randomness is read at once, in bytes: asking for it costs more than all the rest of an id.
const buffered = 1 << 10

// Generator returns a function that makes UUIDv7s in canonical form. Within one process each is greater than
// the one before, even when the clock stands still or goes back. It is safe for concurrent use. It panics when
// random fails, as crypto/rand does: an id that is not random is worse than no process.
func Generator(clk clock.Clock, random io.Reader) func() string {
	var (
		mu   sync.Mutex
		last uint64 // milliseconds in the upper 48 bits, a 12-bit counter in the lower ones
	)
	random = bufio.NewReaderSize(random, buffered)
	return func() string {
		var u [16]byte
		mu.Lock()
		defer mu.Unlock()
		if _, err := io.ReadFull(random, u[:]); err != nil {
			panic(fmt.Errorf("read randomness for an id: %w", err))
		}
		// RFC 9562 section 6.2, method 1: the twelve bits after the milliseconds are a counter, seeded at
		// random with its upper bit clear, so that it has room to count within one millisecond; an overflow
		// borrows from the next.
		next := uint64(clk.Now().UnixMilli())<<12 | uint64(u[6]&0x07)<<8 | uint64(u[7])
		if next <= last {
			next = last + 1
		}
		last = next
		ms, seq := next>>12, next&0xfff
		for i := range 6 {
			u[i] = byte(ms >> (40 - 8*i))
		}
		u[6] = 0x70 | byte(seq>>8)
		u[7] = byte(seq)
		u[8] = u[8]&0x3f | 0x80
		var text [36]byte
		hex.Encode(text[:8], u[:4])
		hex.Encode(text[9:13], u[4:6])
		hex.Encode(text[14:18], u[6:8])
		hex.Encode(text[19:23], u[8:10])
		hex.Encode(text[24:], u[10:])
		text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
		return string(text[:])
	}
}
