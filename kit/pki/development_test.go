package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/concordat-dev/concordat/kit/pki"
)

// leaf returns the certificate of a name that the directory holds.
func (l *lab) leaf(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	f := l.Files(name)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func (l *lab) ensure(t *testing.T, names ...string) {
	t.Helper()
	if err := l.Ensure(t.Context(), names...); err != nil {
		t.Fatal(err)
	}
}

func TestWhatADevelopmentMakes(t *testing.T) {
	l := newLab(t)
	l.ensure(t, "users", pki.Developer)

	info, err := os.Stat(l.dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v, want mode 0700", info.Mode(), err)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", e.Name(), info.Mode(), err)
		}
	}
	want := []string{".lock", "ca.key", "ca.pem", "developer.key", "developer.pem", "users.key", "users.pem"}
	if !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}

	ca := l.ca(t).Leaf
	if !ca.IsCA || ca.NotAfter.Sub(start()) != pki.CALife {
		t.Errorf("CA %v until %v", ca.IsCA, ca.NotAfter)
	}
	leaf := l.leaf(t, "users")
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://concordat/users" {
		t.Errorf("URIs %v", leaf.URIs)
	}
	if !slices.Equal(leaf.DNSNames, []string{"localhost"}) {
		t.Errorf("DNS names %v", leaf.DNSNames)
	}
	if len(leaf.IPAddresses) != 2 || !leaf.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) || !leaf.IPAddresses[1].Equal(net.IPv6loopback) {
		t.Errorf("IP addresses %v", leaf.IPAddresses)
	}
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key %T", leaf.PublicKey)
	}
	if leaf.IsCA || leaf.NotAfter.Sub(start()) != pki.LeafLife || leaf.NotBefore.After(start()) {
		t.Errorf("leaf from %v until %v", leaf.NotBefore, leaf.NotAfter)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} { // as grpcurl verifies it
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: start()}); err != nil {
			t.Errorf("verify for %s: %v", host, err)
		}
	}
}

func TestTheCASignsForThisMachineOnly(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	ca := l.ca(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	for name, change := range map[string]func(*x509.Certificate){
		"a host of the internet":    func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} },
		"an address of the network": func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} },
	} {
		if _, err := l.mint(t, ca, change).Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start()}); err == nil {
			t.Errorf("the CA is trusted for %s", name)
		}
	}
}

func TestWhatIsThereAndFitIsKept(t *testing.T) {
	l := newLab(t)
	l.ensure(t, "users")
	before := map[string][]byte{}
	for _, file := range []string{"ca.pem", "ca.key", "users.pem", "users.key"} {
		before[file] = readFile(t, filepath.Join(l.dir, file))
	}
	leaf := l.leaf(t, "users")
	l.clock.Advance(leaf.NotAfter.Sub(leaf.NotBefore)*2/3 - 2*time.Minute) // just before two thirds are over
	l.ensure(t, "users", "auth")
	for file, was := range before {
		if !bytes.Equal(readFile(t, filepath.Join(l.dir, file)), was) {
			t.Errorf("%s was made anew", file)
		}
	}
}

func TestWhatMakesACertificateUnfit(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, l *lab)
	}{
		{"two thirds of its life are over", func(t *testing.T, l *lab) { l.clock.Advance(17 * time.Hour) }},
		{"it has expired", func(t *testing.T, l *lab) { l.clock.Advance(48 * time.Hour) }},
		{"it is missing", func(t *testing.T, l *lab) { remove(t, l.Files("users").Cert) }},
		{"its key is missing", func(t *testing.T, l *lab) { remove(t, l.Files("users").Key) }},
		{"its key is that of another", func(t *testing.T, l *lab) {
			l.ensure(t, "auth")
			writeFile(t, l.Files("users").Key, readFile(t, l.Files("auth").Key))
		}},
		{"it is that of another name", func(t *testing.T, l *lab) {
			l.ensure(t, "auth")
			writeFile(t, l.Files("users").Key, readFile(t, l.Files("auth").Key))
			writeFile(t, l.Files("users").Cert, readFile(t, l.Files("auth").Cert))
		}},
		{"it is of another trust domain", func(t *testing.T, l *lab) {
			remove(t, l.Files("users").Cert)
			if err := l.another(t, "elsewhere").Ensure(t.Context(), "users"); err != nil {
				t.Fatal(err)
			}
		}},
		{"it is no certificate", func(t *testing.T, l *lab) { writeFile(t, l.Files("users").Cert, []byte("?")) }},
		{"its CA was removed", func(t *testing.T, l *lab) { remove(t, filepath.Join(l.dir, "ca.pem")) }},
		{"the key of its CA was removed", func(t *testing.T, l *lab) { remove(t, filepath.Join(l.dir, "ca.key")) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t)
			l.ensure(t, "users")
			before := l.leaf(t, "users")
			row.spoil(t, l)
			l.ensure(t, "users")
			after := l.leaf(t, "users")
			if after.Equal(before) {
				t.Error("the certificate was kept")
			}
			if err := after.CheckSignatureFrom(l.ca(t).Leaf); err != nil {
				t.Errorf("the new certificate is not of the present CA: %v", err)
			}
			if after.URIs[0].String() != "spiffe://concordat/users" || after.NotAfter.Sub(l.clock.Now()) != pki.LeafLife {
				t.Errorf("the new certificate is %v until %v", after.URIs, after.NotAfter)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestACAThatWouldNotOutliveALeafIsReplacedAndStaysTrusted(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	first := l.ca(t).Leaf

	l.clock.Advance(pki.CALife - pki.LeafLife)
	l.ensure(t)
	if !l.ca(t).Leaf.Equal(first) {
		t.Fatal("the CA was replaced though it outlives a leaf")
	}
	old := l.identity(t, "users") // signed by the first CA, to its last hour
	l.clock.Advance(time.Second)
	fresh := l.identity(t, "auth")
	if l.ca(t).Leaf.Equal(first) {
		t.Fatal("the CA was not replaced")
	}

	// Both directions, though users still has a certificate of the former CA.
	l.clock.Advance(2 * time.Second)
	connect(t, old.ServerTLS(), fresh.ClientTLS("users")).expect(t, true)
	connect(t, fresh.ServerTLS(), old.ClientTLS("auth")).expect(t, true)

	// CAs that are over leave the file.
	l.clock.Advance(pki.CALife)
	l.ensure(t)
	if got := bytes.Count(readFile(t, filepath.Join(l.dir, "ca.pem")), []byte("BEGIN CERTIFICATE")); got != 1 {
		t.Errorf("%d certificates of CAs, want 1", got)
	}
}

func TestACAWithoutItsCertificateIsMadeAnew(t *testing.T) {
	l := newLab(t)
	l.ensure(t, "users")
	// A maker died between ca.key and ca.pem: the key is new, the certificate is the former one.
	other := newLab(t)
	other.ensure(t)
	writeFile(t, filepath.Join(l.dir, "ca.key"), readFile(t, filepath.Join(other.dir, "ca.key")))
	old := l.leaf(t, "users")
	l.ensure(t, "users")
	if err := l.leaf(t, "users").CheckSignatureFrom(l.ca(t).Leaf); err != nil {
		t.Error(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, filepath.Join(l.dir, "ca.pem")))
	if _, err := old.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start()}); err != nil {
		t.Errorf("a certificate in use is no longer trusted: %v", err)
	}
}

func TestADirectoryThatCannotBeTrustedIsAnError(t *testing.T) {
	notECDSA := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("?")})
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, l *lab)
		want  string
	}{
		{"others can read the key of the CA", chmod("ca.key", 0o640), "ca.key has mode 0640"},
		{"others can read the key of a leaf", chmod("users.key", 0o604), "users.key has mode 0604"},
		{"others can write to it", chmod("", 0o770), "has mode 0770"},
		{"the certificate of the CA is damaged", spoil("ca.pem", []byte("?")), "ca.pem"},
		{"the key of the CA is damaged", spoil("ca.key", []byte("?")), "ca.key"},
		{"the key of the CA is none", spoil("ca.key", notECDSA), "ca.key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t)
			l.ensure(t, "users")
			row.spoil(t, l)
			err := l.Ensure(t.Context(), "users")
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("Ensure = %v, want %q in it", err, row.want)
			}
		})
	}
}

func chmod(file string, mode os.FileMode) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		t.Helper()
		if err := os.Chmod(filepath.Join(l.dir, file), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func spoil(file string, data []byte) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		t.Helper()
		writeFile(t, filepath.Join(l.dir, file), data)
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"", ".", "..", "../users", "a/b", "us ers", "ca"} {
		if err := l.Ensure(t.Context(), name); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
	for _, td := range []string{"", "Concordat", "spiffe://concordat", "con/cordat"} {
		if _, err := pki.NewDevelopment(l.dir, td, l.clock); err == nil {
			t.Errorf("the trust domain %q was accepted", td)
		}
	}
}

func TestADirectoryThatIsAFileIsAnError(t *testing.T) {
	l := newLab(t)
	writeFile(t, l.dir, nil)
	if err := l.Ensure(t.Context(), "users"); err == nil {
		t.Error("Ensure succeeded")
	}
}

func TestMakersAtTheSameTimeAgree(t *testing.T) {
	l := newLab(t)
	const makers = 8
	names := []string{"auth", "gateway", "payments", "users"}
	identities := make([]*pki.Identity, makers)
	var all sync.WaitGroup
	for n := range makers {
		d := l.another(t, pki.DefaultTrustDomain)
		all.Go(func() {
			if err := d.Ensure(t.Context(), names...); err != nil {
				t.Errorf("maker %d: %v", n, err)
			}
			i, err := d.Identity(t.Context(), names[n%len(names)], nil)
			if err != nil {
				t.Errorf("maker %d: %v", n, err)
			}
			identities[n] = i
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if got := bytes.Count(readFile(t, filepath.Join(l.dir, "ca.pem")), []byte("BEGIN CERTIFICATE")); got != 1 {
		t.Errorf("%d CAs were made, want 1", got)
	}
	for n, i := range identities {
		next := identities[(n+1)%makers]
		connect(t, i.ServerTLS(), next.ClientTLS(i.Name())).expect(t, true)
	}
}

func TestTheWaitForAnotherMakerHasAnEnd(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	lock := flock.New(filepath.Join(l.dir, ".lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()

	pki.SetLockWait(l.Development, 20*time.Millisecond)
	if err := l.Ensure(t.Context(), "users"); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("Ensure = %v, want that another process is at it", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Ensure(ctx, "users"); !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure = %v, want %v", err, context.Canceled)
	}
}

func TestWhatADeadMakerLeftIsRemoved(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	left := filepath.Join(l.dir, ".new-1234")
	writeFile(t, left, []byte("half a key"))
	l.ensure(t)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
