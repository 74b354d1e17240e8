// Package clock says where time comes from. All code that asks for the time or waits takes a Clock, so that a
// test moves time (package clocktest) instead of sleeping through it. It imports the standard library only,
// because domains import it.
package clock

import "time"

// Clock tells the time and wakes after a while. It is safe for concurrent use.
type Clock interface {
	// Now returns the present time.
	Now() time.Time
	// After returns a channel that receives the time once, when at least d has passed. A d of zero or less is due
	// at once. The channel holds its value until it is read, so a reader that gave up blocks nobody.
	After(d time.Duration) <-chan time.Time
}

// System returns the clock of the machine.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time                         { return time.Now() }
func (system) After(d time.Duration) <-chan time.Time { return time.After(d) }
