package pki

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// checkEvery is how often handshakes and NotAfter look whether the files have changed.
	checkEvery = time.Second
	// renewCheck is the longest that Renew waits before it looks at the time again: a machine that slept has
	// not counted the hours.
	renewCheck = 10 * time.Minute
	// renewRetry is how long Renew waits after it failed.
	renewRetry = time.Minute
)

// stamp is a state of the files.
type stamp [3]os.FileInfo

func stampOf(files Files) (stamp, error) {
	var s stamp
	for n, path := range [...]string{files.CA, files.Cert, files.Key} {
		info, err := os.Stat(path)
		if err != nil {
			return stamp{}, err
		}
		s[n] = info
	}
	return s, nil
}

func (s stamp) equal(o stamp) bool {
	for n := range s {
		if s[n] == nil || o[n] == nil {
			return s[n] == o[n]
		}
		if !os.SameFile(s[n], o[n]) || s[n].Size() != o[n].Size() || !s[n].ModTime().Equal(o[n].ModTime()) {
			return false
		}
	}
	return true
}

// material returns what handshakes use, after a look at the files if the last is a second old. One caller
// looks; those beside it go on with what is there.
func (i *Identity) material() *material {
	now := i.clock.Now().UnixNano()
	last := i.checked.Load()
	if (now-last >= int64(checkEvery) || now < last) && i.checked.CompareAndSwap(last, now) {
		i.reload()
	}
	return i.now.Load()
}

// reload reads the files if they have changed. If they cannot be used, the former ones stay. The first failure
// is not reported, because the files may be half written; it is when they are still the same at the next look,
// once.
func (i *Identity) reload() {
	i.reloading.Lock()
	defer i.reloading.Unlock()
	state, err := stampOf(i.files)
	if err == nil && state.equal(i.now.Load().stamp) {
		i.failed, i.reported = nil, false
		return
	}
	var m *material
	if err == nil {
		m, err = load(i.files, i.trustDomain, i.clock.Now())
	}
	if err == nil && m.id != i.now.Load().id {
		err = fmt.Errorf("certificate %s is now that of %v, not of %v", i.files.Cert, m.id, i.now.Load().id)
	}
	if err == nil {
		i.now.Store(m)
		i.failed, i.reported = nil, false
		return
	}
	again := i.failed != nil && state.equal(*i.failed)
	i.failed = &state
	if !again {
		i.reported = false
		return
	}
	if !i.reported {
		i.reported = true
		i.report(fmt.Errorf("reload certificate, the one until %v stays in use: %w", i.now.Load().leaf.NotAfter.UTC().Format(time.RFC3339), err))
	}
}

// Renew keeps the identity of a Development alive until ctx ends: it makes a new certificate when two thirds of
// the life of the present one are over. A failure is reported and tried again. Where the files come from
// outside, Renew returns at once: whoever wrote them renews them.
func (i *Identity) Renew(ctx context.Context) {
	if i.authority == nil {
		return
	}
	for {
		wait := renewAt(i.now.Load().leaf).Sub(i.clock.Now())
		if wait <= 0 {
			if err := i.renew(ctx); err != nil {
				if ctx.Err() != nil {
					return
				}
				i.report(fmt.Errorf("renew certificate: %w", err))
				wait = renewRetry
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-i.clock.After(min(wait, renewCheck)):
		}
	}
}

// renew makes a new certificate and uses it from now on.
func (i *Identity) renew(ctx context.Context) error {
	m, err := i.authority.issue(ctx, i.Name())
	if err != nil {
		return err
	}
	i.reloading.Lock()
	defer i.reloading.Unlock()
	i.now.Store(m)
	i.failed, i.reported = nil, false
	return nil
}
