package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/concordat-dev/concordat/kit/clock"
)

const (
	// LeafLife is how long a certificate of a Development is valid.
	LeafLife = 24 * time.Hour
	// CALife is how long the CA of a Development is valid.
	CALife = 90 * 24 * time.Hour
	// Developer is the name of the person at the keyboard.
	Developer = "developer"

	lockRetry = 10 * time.Millisecond
	// skew is how far the clocks of two machines that share a directory may be apart.
	skew = time.Minute
)

// Development is a PKI that lives in one directory, is made when it is first asked for, and is shared by all
// processes that use the directory. Whoever can read the directory can be any service: it is for one person's
// machine.
//
// The directory holds ca.pem, ca.key and for each name <name>.pem and <name>.key, all with mode 0600.
type Development struct {
	dir         string
	trustDomain spiffeid.TrustDomain
	clock       clock.Clock
	lockWait    time.Duration
}

// NewDevelopment returns the PKI in dir, which need not exist yet. Nothing is read or written until a name is
// asked for.
func NewDevelopment(dir, trustDomain string, clk clock.Clock) (*Development, error) {
	td, err := parseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	return &Development{dir: dir, trustDomain: td, clock: clk, lockWait: 10 * time.Second}, nil
}

// Files returns where the files of a name are.
func (d *Development) Files(name string) Files {
	return Files{CA: d.path("ca.pem"), Cert: d.path(name + ".pem"), Key: d.path(name + ".key")}
}

func (d *Development) path(file string) string { return filepath.Join(d.dir, file) }

// Ensure sees to it that each name has a certificate with more than a third of its life left, signed by a CA
// that outlives it, and makes what is missing. Processes that do so at the same time agree: one works, the
// others wait for at most ten seconds. It returns an error if the directory cannot be used, or if others can
// read its keys.
func (d *Development) Ensure(ctx context.Context, names ...string) error {
	return d.locked(ctx, func() error {
		ca, err := d.authority()
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := d.ensureLeaf(ca, name); err != nil {
				return fmt.Errorf("certificate of %q: %w", name, err)
			}
		}
		return nil
	})
}

// Identity returns the identity of name, and makes it if need be. Whoever holds it runs its Renew. report is as
// in Open.
func (d *Development) Identity(ctx context.Context, name string, report func(error)) (*Identity, error) {
	m, err := d.issue(ctx, name)
	if err != nil {
		return nil, err
	}
	if report == nil {
		report = func(error) {}
	}
	i := &Identity{files: d.Files(name), trustDomain: d.trustDomain, clock: d.clock, report: report, authority: d}
	i.now.Store(m)
	i.checked.Store(d.clock.Now().UnixNano())
	return i, nil
}

// issue ensures the certificate of name and reads it under the same lock, so that nobody replaces it in between.
func (d *Development) issue(ctx context.Context, name string) (*material, error) {
	var m *material
	err := d.locked(ctx, func() error {
		ca, err := d.authority()
		if err != nil {
			return err
		}
		if err := d.ensureLeaf(ca, name); err != nil {
			return fmt.Errorf("certificate of %q: %w", name, err)
		}
		m, err = load(d.Files(name), d.trustDomain, d.clock.Now())
		return err
	})
	return m, err
}

// locked runs do while no other process works on the directory.
func (d *Development) locked(ctx context.Context, do func() error) (err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("development PKI: %w", err)
	}
	if err := d.refuseOthers("", 0o022, "others can write to it"); err != nil {
		return err
	}
	lock := flock.New(d.path(".lock"), flock.SetPermissions(0o600))
	bounded, cancel := context.WithTimeout(ctx, d.lockWait)
	defer cancel()
	if ok, err := lock.TryLockContext(bounded, lockRetry); !ok || err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("another process has held it for %v", d.lockWait)
		}
		return fmt.Errorf("development PKI: lock %s: %w", d.dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := d.sweep(); err != nil {
		return fmt.Errorf("development PKI: %w", err)
	}
	if err := do(); err != nil {
		return fmt.Errorf("development PKI %s: %w", d.dir, err)
	}
	return nil
}

// sweep removes what a maker left that died before it put a file in its place. Files are made under the lock
// only.
func (d *Development) sweep() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), newFiles) {
			continue
		}
		if err := os.Remove(d.path(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// refuseOthers returns an error if a file of the directory, or with "" the directory, grants any of the mode
// bits.
func (d *Development) refuseOthers(file string, bits os.FileMode, why string) error {
	if runtime.GOOS == "windows" {
		return nil // there the mode says nothing about who may read
	}
	info, err := os.Stat(d.path(file))
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&bits != 0 {
		return fmt.Errorf("%s has mode %04o: %s; remove the directory %s and a new one is made", d.path(file), mode, why, d.dir)
	}
	return nil
}

// authority returns the present CA, and makes one if there is none, its key does not fit (a maker died between
// the two files), or it would not outlive a leaf.
func (d *Development) authority() (*authority, error) {
	now := d.clock.Now()
	ca, err := d.readAuthority()
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errMismatch):
	case err != nil:
		return nil, err
	case ca.key != nil && !now.Before(ca.cert().NotBefore) && ca.cert().NotAfter.Sub(now) >= LeafLife:
		return ca, nil
	}
	var former []*x509.Certificate
	if ca != nil {
		former = ca.certs
	}
	fresh, err := newAuthority(d.trustDomain, now, former)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	if err := d.writeAuthority(fresh); err != nil {
		return nil, fmt.Errorf("write CA: %w", err)
	}
	return fresh, nil
}

// ensureLeaf makes the certificate of name unless there is one that will do.
func (d *Development) ensureLeaf(ca *authority, name string) error {
	id, err := spiffeid.FromSegments(d.trustDomain, name)
	if err != nil {
		return err
	}
	if name == "ca" {
		return errors.New("the name is that of the CA")
	}
	switch ok, err := d.leafIsFit(ca, id); {
	case err != nil:
		return err
	case ok:
		return nil
	}
	certPEM, keyPEM, err := ca.issue(id, d.clock.Now())
	if err != nil {
		return err
	}
	files := d.Files(name)
	// A reader between the two finds a pair that does not fit, and keeps what it has.
	if err := writeFile(files.Key, keyPEM); err != nil {
		return err
	}
	return writeFile(files.Cert, certPEM)
}

// leafIsFit says whether the certificate of id is there, signed by the present CA, and has more than a third of
// its life left. A key that others can read is an error.
func (d *Development) leafIsFit(ca *authority, id spiffeid.ID) (bool, error) {
	name := nameOf(id)
	err := d.refuseOthers(name+".key", 0o077, "others can read the key")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := d.clock.Now()
	m, err := load(d.Files(name), d.trustDomain, now)
	if err != nil {
		return false, nil // missing, of another CA, expired or half written: what is made anew is right
	}
	return m.id == id && m.leaf.CheckSignatureFrom(ca.cert()) == nil && now.Before(renewAt(m.leaf)), nil
}

// renewAt returns when two thirds of the life of a certificate are over.
func renewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}
