package main_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/token"
)

// house is a running standalone with a certificate at its edge, and everything that it takes to knock at each of its
// doors.
type house struct {
	*standalone
	dir     string
	pki     *pki.Development
	signing ed25519.PrivateKey
	seed    int
	edge    *grpcWire // nobody's
}

// open starts a standalone. Callers of the edge can show a certificate there, as they can to a service.
func open(t *testing.T, args ...string) *house {
	t.Helper()
	h := &house{dir: t.TempDir()}
	h.pki = authority(t, filepath.Join(h.dir, ".concordat", "pki"))
	const edge = "edge"
	if err := h.pki.Ensure(t.Context(), edge); err != nil {
		t.Fatal(err)
	}
	files := h.pki.Files(edge)
	h.standalone = run(t, h.dir, append([]string{"--gateway-edge-cert=" + files.Cert, "--gateway-edge-key=" + files.Key}, args...)...)
	block, err := os.ReadFile(filepath.Join(h.dir, ".concordat", "auth", "signing-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	h.signing = privateKey(t, block)
	h.edge = dialGRPC(t, "gRPC", h.grpc, h.tls(t, nil))
	return h
}

func authority(t *testing.T, dir string) *pki.Development {
	t.Helper()
	d, err := pki.NewDevelopment(dir, pki.DefaultTrustDomain, clock.System())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func privateKey(t *testing.T, text []byte) ed25519.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("the signing key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(ed25519.PrivateKey)
}

func (h *house) tls(t *testing.T, cert *tls.Certificate) *tls.Config {
	t.Helper()
	return clientTLS(t, h.pki.Files("edge").CA, cert)
}

// certificate returns the certificate of a name from a PKI.
func certificate(t *testing.T, d *pki.Development, name string) *tls.Certificate {
	t.Helper()
	if err := d.Ensure(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(d.Files(name).Cert, d.Files(name).Key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

func (h *house) address(service string) string {
	return map[string]string{"auth": h.auth, "users": h.users, "payments": h.payments}[service]
}

// next returns a filler whose values nobody has used.
func (h *house) next() filler {
	h.seed++
	return filler{h.seed}
}

// account is somebody who has signed up and in.
type account struct {
	id, email, access, refresh string
	scopes                     []string
}

// join makes an account.
func (h *house) join(t *testing.T, adminCode string) account {
	t.Helper()
	f := h.next()
	p := &person{ctx: within(t), sessions: authv1.NewSessionServiceClient(h.edge.conn)}
	a := account{email: fmt.Sprintf("account-%d@example.com", f.seed)}
	p.signUp(t, a.email, f.uuid(), adminCode)
	resp, err := p.sessions.SignIn(p.ctx, &authv1.SignInRequest{Email: a.email, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	a.id, a.access, a.refresh = resp.GetAccount().GetUserId(), resp.GetTokens().GetAccessToken(), resp.GetTokens().GetRefreshToken()
	a.scopes = scopesOf(t, a.access)
	return a
}

// scopesOf reads the scopes out of a token as anybody can.
func scopesOf(t *testing.T, token string) []string {
	t.Helper()
	parts := strings.Split(token, ".")
	var claims struct{ Scope string }
	raw, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(claims.Scope)
}

// sign returns a token of the account that was good for ten minutes from a time on.
func (h *house) sign(t *testing.T, key ed25519.PrivateKey, a account, from time.Time) string {
	t.Helper()
	signer := token.NewSigner(key, "http://localhost:8080", "concordat", clocktest.New(from), func() string { return h.next().uuid() })
	text, err := signer.Sign(identity.User{ID: a.id, SessionID: "s", Scopes: a.scopes, ExpiresAt: from.Add(10 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// caller is a column of the matrix.
type caller struct {
	name string
	// user is whose token the call carries; nil where it carries none.
	user *account
	// bad is the reason for which the token is no good; "" where it is good.
	bad   string
	token string
	// peer is the name in the certificate; "" where there is none that the services trust.
	peer string
}

// verdict is what the policy says to a call: one of these, or the code and reason of a refusal.
type verdict string

const (
	admitted     verdict = "admitted"
	noConnection verdict = "no connection"
	usedUp       verdict = "the rate is used up" // which is none: the call did not get to where it is given
)

// predict reads the policy as its .proto describes it. peer is the name at the other end of the connection that reaches
// the service, owner whom the request is about.
func predict(p *policyv1.MethodPolicy, c caller, peer, owner string) verdict {
	if peer == "" {
		return noConnection
	}
	isFor := func(a policyv1.Audience) bool { return slices.Contains(p.GetAudience(), a) }
	if len(p.GetCallers()) > 0 && !slices.Contains(p.GetCallers(), peer) {
		return "PermissionDenied CALLER_REFUSED"
	}
	if c.user != nil && isFor(policyv1.Audience_AUDIENCE_USER) {
		if c.bad != "" {
			return verdict("Unauthenticated " + c.bad)
		}
		for _, s := range p.GetScopes() {
			if !slices.Contains(c.user.scopes, s) {
				return "PermissionDenied SCOPE_MISSING"
			}
		}
		if self := p.GetSelf(); self != nil && c.user.id != owner && !slices.Contains(c.user.scopes, self.GetOrScope()) {
			return "PermissionDenied NOT_SELF"
		}
		return admitted
	}
	isService := c.user == nil && peer != kit.Edge
	switch {
	case isFor(policyv1.Audience_AUDIENCE_PUBLIC), isFor(policyv1.Audience_AUDIENCE_SERVICE) && isService:
		return admitted
	case isFor(policyv1.Audience_AUDIENCE_USER):
		return "Unauthenticated CREDENTIALS_MISSING"
	default:
		return "PermissionDenied CALLER_REFUSED"
	}
}

// judged returns the verdict that a reply shows, and how long the caller was told to wait where its rate was used up. An
// error that says nothing of the policy, because something was broken, is an error here.
func judged(r reply) (v verdict, wait time.Duration, err error) {
	if r.refused != nil {
		return noConnection, 0, nil
	}
	if r.status == nil {
		return admitted, 0, nil
	}
	var info *errdetails.ErrorInfo
	for _, d := range r.status.GetDetails() {
		m, err := d.UnmarshalNew()
		if err != nil {
			return "", 0, err
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			info = m
		case *errdetails.RetryInfo:
			wait = m.GetRetryDelay().AsDuration()
		}
	}
	code := codes.Code(r.status.GetCode())
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unavailable, codes.Unimplemented, codes.DeadlineExceeded, codes.Canceled:
		return "", 0, fmt.Errorf("%v: %s", code, r.all)
	}
	if info == nil {
		return "", 0, fmt.Errorf("no reason: %s", r.all)
	}
	if info.GetDomain() != "policy.v1" {
		return admitted, 0, nil // a service's own answer
	}
	switch reason := info.GetReason(); {
	case slices.Contains([]string{"CREDENTIALS_MISSING", "CALLER_REFUSED", "SCOPE_MISSING", "NOT_SELF", "NO_POLICY"}, reason),
		strings.HasPrefix(reason, "TOKEN_"):
		return verdict(fmt.Sprintf("%v %s", code, reason)), 0, nil
	case reason == "RATE_LIMITED": // who may call at all, and of whom, is decided before and behind
		return usedUp, max(wait, time.Millisecond), nil
	case reason == "MALFORMED_REQUEST", code == codes.ResourceExhausted:
		return "", 0, fmt.Errorf("the call did not get to where the verdict is given: %s", r.all)
	default:
		return admitted, 0, nil
	}
}

// doors are the ways to every service for whoever has a certificate, or has none.
type doors struct {
	web    httpWire
	edge   []wire               // all that the gateway speaks
	direct map[string]*grpcWire // by service
}

func (h *house) doors(t *testing.T, cert *tls.Certificate) doors {
	t.Helper()
	cfg := h.tls(t, cert)
	web := dialHTTP(t, h.http, cfg)
	d := doors{web: web, edge: []wire{
		dialGRPC(t, "gRPC", h.grpc, cfg), dialGRPC(t, "gRPC on the HTTP listener", h.http, cfg), restWire{web, 0}, restWire{web, 1},
		connectWire{web, "json"}, webWire{web, "proto"},
	}, direct: map[string]*grpcWire{}}
	for _, service := range []string{"auth", "users", "payments"} {
		d.direct[service] = dialGRPC(t, "gRPC to "+service, h.address(service), cfg)
	}
	return d
}

// TestEveryMethodGivesOneVerdict calls every method of the contract as everybody, over everything, and holds each answer
// against the policy of the method.
func TestEveryMethodGivesOneVerdict(t *testing.T) {
	t.Parallel()
	h := open(t)
	all := contract(t)
	if len(all) < 20 {
		t.Fatalf("the contract has %d methods", len(all))
	}
	admin := h.join(t, h.find(`"admin_code": "([^"]+)"`)[1])
	user, other := h.join(t, ""), h.join(t, "")

	names := []string{"auth", "users", "payments", kit.Edge, kit.Developer}
	through := map[string]doors{"": h.doors(t, nil)}
	for _, name := range names {
		through[name] = h.doors(t, certificate(t, h.pki, name))
	}
	const otherCA = "of another CA"
	through[otherCA] = h.doors(t, certificate(t, authority(t, t.TempDir()), "auth"))

	var mu sync.Mutex
	seen := map[verdict]int{}
	t.Run("methods", func(t *testing.T) {
		for _, m := range all {
			if h.address(m.service) == "" {
				t.Fatalf("%s: nobody serves it", m.path())
			}
			me, they := user, other
			if m.changes() && m.isFor(policyv1.Audience_AUDIENCE_USER) && subset(m.policy.GetScopes(), user.scopes) {
				me, they = h.join(t, ""), h.join(t, "") // what it changes must not change the verdicts on others
			}
			_, stranger, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			columns := []caller{
				{name: "anonymous"},
				{name: "the user", user: &me, token: me.access},
				{name: "another user", user: &they, token: they.access},
				{name: "an administrator", user: &admin, token: admin.access},
				{name: "the user with an expired token", user: &me, bad: "TOKEN_EXPIRED", token: h.sign(t, h.signing, me, time.Now().Add(-time.Hour))},
				{name: "the user with a forged token", user: &me, bad: "TOKEN_INVALID", token: h.sign(t, stranger, me, time.Now())},
				{name: "a service " + otherCA},
			}
			for _, name := range names {
				columns = append(columns, caller{name: "the service " + name, peer: name})
			}
			var cells []cell
			for _, c := range columns {
				shown := c.peer
				if strings.HasSuffix(c.name, otherCA) {
					shown = otherCA
				}
				for _, w := range through[shown].edge {
					if w.serves(m) {
						cells = append(cells, cell{m, c, kit.Edge, me.id, w, h.next()})
					}
				}
				if c.user != nil { // a person has no certificate; the developer's opens the connection
					c.peer, shown = kit.Developer, kit.Developer
				}
				cells = append(cells, cell{m, c, c.peer, me.id, through[shown].direct[m.service], h.next()})
			}
			t.Run(m.path(), func(t *testing.T) {
				t.Parallel()
				gone := false // what was admitted has ended the account that the cells are about
				for _, c := range cells {
					got := c.check(t, gone)
					gone = gone || got == admitted && m.ends()
					mu.Lock()
					seen[got]++
					mu.Unlock()
				}
			})
		}
	})
	for _, v := range []verdict{
		admitted, noConnection, "Unauthenticated CREDENTIALS_MISSING", "Unauthenticated TOKEN_EXPIRED", "Unauthenticated TOKEN_INVALID",
		"PermissionDenied CALLER_REFUSED", "PermissionDenied SCOPE_MISSING", "PermissionDenied NOT_SELF",
	} {
		if seen[v] == 0 {
			t.Errorf("nobody was told %q: %v", v, seen)
		}
	}
	t.Logf("%d methods: %v", len(all), seen)
}

func subset(few, many []string) bool {
	return !slices.ContainsFunc(few, func(s string) bool { return !slices.Contains(many, s) })
}

// cell is one field of the matrix.
type cell struct {
	method method
	caller caller
	peer   string // at the other end of the service's connection
	owner  string // whom the request is about
	wire   wire
	fill   filler
}

// check calls, and compares. Where the account is gone its tokens are revoked, as soon as auth has heard of it; that
// says the same of the policy as being admitted does.
func (c cell) check(t *testing.T, gone bool) verdict {
	t.Helper()
	want := predict(c.method.policy, c.caller, c.peer, c.owner)
	body, err := c.wire.encode(c.fill.request(c.method, c.owner))
	if err != nil {
		t.Fatal(err)
	}
	got, wait, err := c.call(t.Context(), body)
	for patience := time.Now().Add(time.Minute); err == nil && got == usedUp && time.Now().Add(wait).Before(patience); {
		time.Sleep(wait)
		got, wait, err = c.call(t.Context(), body)
	}
	switch {
	case err != nil:
		t.Errorf("%s, over %s: %v", c.caller.name, c.wire, err)
	case gone && want == admitted && got == "Unauthenticated TOKEN_REVOKED":
		return want
	case got != want:
		t.Errorf("%s, over %s: %s; the policy says: %s", c.caller.name, c.wire, got, want)
	}
	return got
}

func (c cell) call(ctx context.Context, body []byte) (verdict, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := c.wire.call(ctx, c.method, c.caller.token, body)
	if err != nil {
		return "", 0, err
	}
	if r.refused != nil && c.peer != "" {
		return "", 0, errors.New(r.refused.Error())
	}
	return judged(r)
}
