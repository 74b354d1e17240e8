package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/pki"
)

// reports collects what an identity has to say.
type reports struct {
	mu   sync.Mutex
	said []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, err)
}

func (r *reports) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said)
}

func (l *lab) open(t *testing.T, files pki.Files, r *reports) *pki.Identity {
	t.Helper()
	i, err := pki.Open(files, pki.DefaultTrustDomain, l.clock, r.add)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestAnIdentityIsReadFromFiles(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	files := l.write(t, l.mint(t, l.ca(t), nil))
	i, err := pki.Open(files, pki.DefaultTrustDomain, l.clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	if i.Name() != "auth" || i.ID() != "spiffe://concordat/auth" || !i.NotAfter().Equal(start().Add(time.Hour)) {
		t.Errorf("name %q, id %q, until %v", i.Name(), i.ID(), i.NotAfter())
	}
	i.Renew(t.Context()) // returns: these files are somebody else's
	connect(t, l.identity(t, "users").ServerTLS(), i.ClientTLS("users")).expect(t, true)
}

func TestWhatCannotBeAnIdentity(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	other := newLab(t)
	other.ensure(t)
	changed := func(change func(*x509.Certificate)) func(t *testing.T) pki.Files {
		return func(t *testing.T) pki.Files { return l.write(t, l.mint(t, l.ca(t), change)) }
	}
	for _, row := range []struct {
		name  string
		files func(t *testing.T) pki.Files
	}{
		{"no file", func(t *testing.T) pki.Files { return pki.Files{CA: "none", Cert: "none", Key: "none"} }},
		{"no CA", func(t *testing.T) pki.Files {
			f := changed(nil)(t)
			writeFile(t, f.CA, readFile(t, f.Key))
			return f
		}},
		{"a key of another certificate", func(t *testing.T) pki.Files {
			f := changed(nil)(t)
			f.Key = changed(nil)(t).Key
			return f
		}},
		{"a certificate of another CA", func(t *testing.T) pki.Files { return l.write(t, other.mint(t, other.ca(t), nil)) }},
		{"a certificate that is over", changed(func(c *x509.Certificate) { c.NotAfter = start().Add(-time.Second) })},
		{"a certificate without a SPIFFE ID", changed(func(c *x509.Certificate) { c.URIs = nil })},
		{"a certificate of another trust domain", changed(func(c *x509.Certificate) { c.URIs[0].Host = "elsewhere" })},
	} {
		t.Run(row.name, func(t *testing.T) {
			if i, err := pki.Open(row.files(t), pki.DefaultTrustDomain, l.clock, nil); err == nil {
				t.Errorf("Open gave %v", i.ID())
			}
		})
	}
	if _, err := pki.Open(changed(nil)(t), "no domain", l.clock, nil); err == nil {
		t.Error("the trust domain was accepted")
	}
}

// numbered mints a certificate that can be told apart.
func (l *lab) numbered(t *testing.T, n int64) tls.Certificate {
	t.Helper()
	return l.mint(t, l.ca(t), func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) })
}

func TestTheEndOfTheCertificateIsThatOfTheFilesWithoutAHandshake(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	files := l.write(t, l.numbered(t, 1))
	var r reports
	i := l.open(t, files, &r)
	first := i.NotAfter()
	second := l.mint(t, l.ca(t), func(c *x509.Certificate) { c.NotAfter = first.Add(30 * time.Minute) })
	writeFile(t, files.Cert, certPEM(second))
	writeFile(t, files.Key, keyPEM(t, second))
	l.clock.Advance(time.Second - 1)
	if got := i.NotAfter(); !got.Equal(first) {
		t.Errorf("the end is %v before the second was over, want %v", got, first)
	}
	l.clock.Advance(1)
	if got, want := i.NotAfter(), first.Add(30*time.Minute); !got.Equal(want) {
		t.Errorf("the end is %v, want %v", got, want)
	}
	writeFile(t, files.Cert, []byte("half"))
	for range 2 { // a failure is reported when the files stay as they are
		l.clock.Advance(time.Second)
		if got, want := i.NotAfter(), first.Add(30*time.Minute); !got.Equal(want) {
			t.Errorf("the end is %v with files that cannot be used, want %v", got, want)
		}
	}
	if r.count() != 1 {
		t.Errorf("%d reports, want 1", r.count())
	}
}

func TestFilesThatChangeAreReadWithinASecond(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	files := l.write(t, l.numbered(t, 1))
	var r reports
	server, client := l.open(t, files, &r), l.identity(t, "users").ClientTLS("auth")
	serial := func() int64 {
		t.Helper()
		c := connect(t, server.ServerTLS(), client)
		c.expect(t, true)
		return c.shown.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("certificate %d, want 1", got)
	}
	held := server.ServerTLS() // a listener keeps one configuration for ever

	second := l.numbered(t, 2)
	writeFile(t, files.Cert, certPEM(second))
	writeFile(t, files.Key, keyPEM(t, second))
	l.clock.Advance(time.Second - 1)
	if got := serial(); got != 1 {
		t.Errorf("certificate %d before the second was over, want 1", got)
	}
	l.clock.Advance(1)
	if c := connect(t, held, client); c.shown == nil || c.shown.SerialNumber.Int64() != 2 {
		t.Errorf("the listener still shows %v", c.shown)
	}
	if r.count() != 0 {
		t.Errorf("reports: %v", r.said)
	}
}

func TestAReloadThatFailsKeepsTheFormerCertificateAndIsReportedOnce(t *testing.T) {
	l := newLab(t)
	l.ensure(t)
	good := l.numbered(t, 1)
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, f pki.Files)
	}{
		{"the key is half written", func(t *testing.T, f pki.Files) { writeFile(t, f.Key, keyPEM(t, good)[:40]) }},
		{"the certificate is not that of the key", func(t *testing.T, f pki.Files) { writeFile(t, f.Cert, certPEM(l.numbered(t, 2))) }},
		{"the CA is gone", func(t *testing.T, f pki.Files) { remove(t, f.CA) }},
		{"it is the certificate of another service", func(t *testing.T, f pki.Files) {
			c := l.mint(t, l.ca(t), func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe("concordat", "/users")} })
			writeFile(t, f.Cert, certPEM(c))
			writeFile(t, f.Key, keyPEM(t, c))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			files := l.write(t, good)
			ca := readFile(t, files.CA)
			var r reports
			server, client := l.open(t, files, &r), l.identity(t, "users").ClientTLS("auth")
			handshake := func() int64 {
				t.Helper()
				l.clock.Advance(time.Second)
				c := connect(t, server.ServerTLS(), client)
				c.expect(t, true)
				return c.shown.SerialNumber.Int64()
			}
			row.spoil(t, files)
			for look, want := range []int{0, 1, 1, 1} { // at the first look it may be half written
				if got := handshake(); got != 1 {
					t.Errorf("look %d: certificate %d, want 1", look, got)
				}
				if got := r.count(); got != want {
					t.Errorf("look %d: %d reports, want %d: %v", look, got, want, r.said)
				}
			}
			mended := l.numbered(t, 3)
			writeFile(t, files.CA, ca)
			writeFile(t, files.Cert, certPEM(mended))
			writeFile(t, files.Key, keyPEM(t, mended))
			if got := handshake(); got != 3 || r.count() != 1 {
				t.Errorf("after the files were mended: certificate %d, %d reports", got, r.count())
			}
		})
	}
}

func TestNoHandshakeFailsWhileFilesAreReplaced(t *testing.T) {
	const replacements, callers = 20, 4
	l := newLab(t)
	l.ensure(t)
	serverFiles, clientFiles := l.write(t, l.numbered(t, 1)), l.write(t, l.numbered(t, 1))
	var r reports
	server, client := l.open(t, serverFiles, &r), l.open(t, clientFiles, &r)
	serverTLS, clientTLS := server.ServerTLS(), client.ClientTLS("auth")

	ctx, stop := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	var mu sync.Mutex
	round, made := sync.NewCond(&mu), 0
	for range callers {
		calls.Go(func() {
			for ctx.Err() == nil {
				connect(t, serverTLS, clientTLS).expect(t, true)
				mu.Lock()
				made++
				round.Broadcast()
				mu.Unlock()
			}
		})
	}
	// Each state of the files is met by handshakes that look at them.
	meet := func() {
		l.clock.Advance(time.Second)
		mu.Lock()
		defer mu.Unlock()
		for want := made + 2*callers; made < want; {
			round.Wait()
		}
	}
	last := int64(0)
	for n := range int64(replacements) {
		last = n + 2
		fresh := l.numbered(t, last)
		for _, f := range []pki.Files{serverFiles, clientFiles} {
			key := keyPEM(t, fresh)
			writeFile(t, f.Key, key[:len(key)/2])
			meet()
			writeFile(t, f.Key, key)
			meet()
			writeFile(t, f.Cert, certPEM(fresh))
		}
		meet()
	}
	stop()
	calls.Wait()
	l.clock.Advance(time.Second)
	c := connect(t, serverTLS, clientTLS)
	c.expect(t, true)
	if got := c.shown.SerialNumber.Int64(); got != last {
		t.Errorf("the server shows certificate %d, want %d", got, last)
	}
	if got := c.peer.PeerCertificates[0].SerialNumber.Int64(); got != last {
		t.Errorf("the client shows certificate %d, want %d", got, last)
	}
}

func TestAnIdentityOutlivesItsCertificate(t *testing.T) {
	l := newLab(t)
	server, client := l.identity(t, "users"), l.identity(t, "auth")
	serverTLS, clientTLS := server.ServerTLS(), client.ClientTLS("users")
	ctx, stop := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	for _, i := range []*pki.Identity{server, client} {
		loops.Go(func() { i.Renew(ctx) })
	}
	first := server.NotAfter()
	// Three days in steps of an hour. Each step finds both loops in their wait, so each has done what was due
	// before.
	for range 72 {
		if err := l.clock.WaitPending(ctx, 2); err != nil {
			t.Fatal(err)
		}
		for _, i := range []*pki.Identity{server, client} {
			if left := i.NotAfter().Sub(l.clock.Now()); left < pki.LeafLife/3-2*time.Minute {
				t.Fatalf("%s has %v left", i.Name(), left)
			}
		}
		connect(t, serverTLS, clientTLS).expect(t, true)
		l.clock.Advance(time.Hour)
	}
	if lived := server.NotAfter().Sub(first); lived < 48*time.Hour {
		t.Errorf("the certificate of the server was renewed for %v only", lived)
	}
	stop()
	loops.Wait()
}

func TestARenewalThatFailsIsReportedAndTriedAgain(t *testing.T) {
	l := newLab(t)
	said := make(chan error, 100)
	i, err := l.Identity(t.Context(), "users", func(err error) { said <- err })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { i.Renew(ctx) })
	caKey := filepath.Join(l.dir, "ca.key")
	if err := os.Chmod(caKey, 0o644); err != nil {
		t.Fatal(err)
	}
	first := i.NotAfter()
	step := func(d time.Duration) {
		t.Helper()
		if err := l.clock.WaitPending(ctx, 1); err != nil {
			t.Fatal(err)
		}
		l.clock.Advance(d)
	}
	step(16 * time.Hour)
	for range 2 {
		if err := <-said; !strings.Contains(err.Error(), "ca.key") {
			t.Errorf("reported: %v", err)
		}
		step(time.Minute)
	}
	<-said
	if err := os.Chmod(caKey, 0o600); err != nil {
		t.Fatal(err)
	}
	step(time.Minute)
	if err := l.clock.WaitPending(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if !i.NotAfter().After(first) {
		t.Errorf("the certificate still ends at %v", i.NotAfter())
	}
	stop()
	loop.Wait()
}

// asked is a clock that remembers the longest wait.
type asked struct {
	*clocktest.Manual
	mu      sync.Mutex
	longest time.Duration
}

func (a *asked) After(d time.Duration) <-chan time.Time {
	a.mu.Lock()
	a.longest = max(a.longest, d)
	a.mu.Unlock()
	return a.Manual.After(d)
}

// The timers of a machine that sleeps stand still, so a wait of sixteen hours would end after the certificate has.
func TestRenewLooksAtTheTimeEveryTenMinutes(t *testing.T) {
	clk := &asked{Manual: clocktest.New(start())}
	d, err := pki.NewDevelopment(filepath.Join(t.TempDir(), "pki"), pki.DefaultTrustDomain, clk)
	if err != nil {
		t.Fatal(err)
	}
	i, err := d.Identity(t.Context(), "users", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { i.Renew(ctx) })
	if err := clk.WaitPending(ctx, 1); err != nil {
		t.Fatal(err)
	}
	stop()
	loop.Wait()
	if clk.longest != 10*time.Minute {
		t.Errorf("it waits for %v", clk.longest)
	}
}
