package pki

import "time"

// SetLockWait shortens how long d waits for another process.
func SetLockWait(d *Development, wait time.Duration) { d.lockWait = wait }
