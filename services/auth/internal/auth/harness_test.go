package auth_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/password"
	"github.com/concordat-dev/concordat/services/auth/internal/sqlstore"
)

// harness is the domain on a real store, beside a users.v1 that keeps its promises in memory.
type harness struct {
	*auth.Service
	t         *testing.T
	clock     *clocktest.Manual
	store     *store
	profiles  *profiles
	passwords *passwords
	begin     string // the token of the empty event log
	log       *eventlog.Log
}

const scope = "test"

func newHarness(t *testing.T) *harness {
	t.Helper()
	clk := clocktest.New(time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC))
	kept, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: t.TempDir(), Clock: clk, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kept.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	cheap, err := password.New(password.Params{MemoryKiB: 64, Passes: 1, Lanes: 1}, 1000, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{
		t: t, clock: clk, log: kept.Log(),
		store:     &store{Store: kept},
		profiles:  &profiles{byID: make(map[auth.UserID]auth.Profile), known: make(map[auth.UserID]auth.KnownProfile)},
		passwords: &passwords{Passwords: cheap},
	}
	sub, err := h.log.Subscribe(t.Context(), eventlog.Watch{Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	h.begin = sub.Position()
	h.Service, err = auth.New(auth.Deps{
		Store: h.store, Profiles: h.profiles, Passwords: h.passwords, AccessTokens: tokens{},
		Clock: clk, NewID: id.Generator(clk, rand.Reader), Random: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// events returns the types of all events of a user, oldest first.
func (h *harness) events(user auth.UserID) []auth.EventType {
	h.t.Helper()
	sub, err := h.log.Subscribe(h.t.Context(), eventlog.Watch{Scope: scope, Token: h.begin})
	if err != nil {
		h.t.Fatal(err)
	}
	defer sub.Close()
	head, err := h.log.Subscribe(h.t.Context(), eventlog.Watch{Scope: scope})
	if err != nil {
		h.t.Fatal(err)
	}
	defer head.Close()
	var all []auth.EventType
	for sub.Position() != head.Position() {
		e, _, err := sub.Next(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if auth.UserID(e.Subject) == user {
			all = append(all, auth.EventType(e.Type))
		}
	}
	return all
}

func (h *harness) wantEvents(user auth.UserID, want ...auth.EventType) {
	h.t.Helper()
	if got := h.events(user); !slices.Equal(got, want) {
		h.t.Errorf("events of %s: got %v, want %v", user, got, want)
	}
}

const secret = "correct horse battery"

func request(n int) auth.SignUpRequest {
	return auth.SignUpRequest{
		Email: fmt.Sprintf("User%d@Example.com", n), Password: secret, DisplayName: fmt.Sprintf("User %d", n),
		RequestID: fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n),
	}
}

// member signs the n-th user up.
func (h *harness) member(n int) auth.Account {
	h.t.Helper()
	a, err := h.SignUp(h.t.Context(), request(n))
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// admin signs the n-th user up as the first administrator.
func (h *harness) admin(n int) auth.Account {
	h.t.Helper()
	r := request(n)
	var err error
	if r.AdminCode, err = h.RenewAdminCode(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	a, err := h.SignUp(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	if a.Role != auth.RoleAdmin {
		h.t.Fatalf("role is %s", a.Role)
	}
	return a
}

// signIn opens a session of the n-th user.
func (h *harness) signIn(n int) auth.Tokens {
	h.t.Helper()
	tokens, _, err := h.SignIn(h.t.Context(), request(n).Email, secret)
	if err != nil {
		h.t.Fatal(err)
	}
	return tokens
}

// want fails the test unless err is target.
func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

// errCrash is what a call sees of a process that dies under it.
var errCrash = errors.New("crash")

// store is a store whose process can die before or behind a transaction.
type store struct {
	auth.Store
	writes atomic.Int64
	noted  atomic.Int64 // attempts to sign in that were written down: events and misses
	before atomic.Int64 // the number of the transaction before which it dies; 0 for never
	behind atomic.Int64 // the same, behind
}

func (s *store) Write(ctx context.Context, fn func(auth.Tx) error) error {
	n := s.writes.Add(1)
	if n == s.before.Load() {
		return errCrash
	}
	err := s.Store.Write(ctx, func(tx auth.Tx) error { return fn(noting{tx, &s.noted}) })
	if n == s.behind.Load() {
		return errCrash
	}
	return err
}

// noting counts what is written down.
type noting struct {
	auth.Tx
	noted *atomic.Int64
}

func (n noting) Append(ctx context.Context, e auth.Event) error {
	n.noted.Add(1)
	return n.Tx.Append(ctx, e)
}

func (n noting) CountMiss(ctx context.Context) error {
	n.noted.Add(1)
	return n.Tx.CountMiss(ctx)
}

// profiles is a users.v1 that keeps profiles by id and emails unique.
type profiles struct {
	mu     sync.Mutex
	byID   map[auth.UserID]auth.Profile
	known  map[auth.UserID]auth.KnownProfile // what became of those that changed
	calls  int
	down   bool
	refuse bool
	before bool   // the process dies before the next profile is made
	behind bool   // the same, behind
	found  func() // called once, behind the next answer to Find
}

func (p *profiles) Create(_ context.Context, profile auth.Profile) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	switch {
	case p.down:
		return auth.ErrUpstreamUnavailable
	case p.refuse:
		return auth.ErrProfileRefused
	case p.before:
		p.before = false
		return errCrash
	}
	if err := p.add(profile); err != nil {
		return err
	}
	if p.behind {
		p.behind = false
		return errCrash
	}
	return nil
}

func (p *profiles) add(profile auth.Profile) error {
	if there, found := p.byID[profile.UserID]; found {
		if there != profile {
			return auth.ErrProfileRefused
		}
		return nil
	}
	for _, other := range p.byID {
		if auth.NormalizeEmail(other.Email) == auth.NormalizeEmail(profile.Email) {
			return auth.ErrEmailTaken
		}
	}
	p.byID[profile.UserID] = profile
	return nil
}

func (p *profiles) Find(_ context.Context, id auth.UserID) (auth.KnownProfile, error) {
	p.mu.Lock()
	p.calls++
	known, err := p.find(id)
	if p.down {
		known, err = auth.KnownProfile{}, auth.ErrUpstreamUnavailable
	}
	found := p.found
	p.found = nil
	p.mu.Unlock()
	if found != nil {
		found()
	}
	return known, err
}

func (p *profiles) find(id auth.UserID) (auth.KnownProfile, error) {
	made, found := p.byID[id]
	if !found {
		return auth.KnownProfile{}, auth.ErrNoRecord
	}
	if known, changed := p.known[id]; changed {
		return known, nil
	}
	return auth.KnownProfile{UserID: id, Email: made.Email, State: auth.ProfileActive}, nil
}

func (p *profiles) FindAll(_ context.Context, ids []auth.UserID) (all []auth.KnownProfile, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, auth.ErrUpstreamUnavailable
	}
	for _, id := range ids {
		if known, err := p.find(id); err == nil {
			all = append(all, known)
		}
	}
	return all, nil
}

// set changes how users.v1 behaves.
func (p *profiles) set(change func(*profiles)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// importUser makes a profile as an import does, past auth.
func (p *profiles) importUser(profile auth.Profile) {
	p.set(func(p *profiles) { p.byID[profile.UserID] = profile })
}

func (p *profiles) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byID)
}

// passwords counts what it is asked.
type passwords struct {
	auth.Passwords
	verified atomic.Int64
	outdated atomic.Bool  // whether every hash counts as outdated
	after    func()       // runs once behind the next comparison
	mu       sync.Mutex   // guards after
	hashed   atomic.Int64 // how many hashes were made
}

func (p *passwords) Hash(ctx context.Context, password string) (string, error) {
	p.hashed.Add(1)
	return p.Passwords.Hash(ctx, password)
}

func (p *passwords) Verify(ctx context.Context, password, hash string) (auth.Verdict, error) {
	p.verified.Add(1)
	verdict, err := p.Passwords.Verify(ctx, password, hash)
	verdict.Outdated = verdict.Match && p.outdated.Load()
	p.mu.Lock()
	after := p.after
	p.after = nil
	p.mu.Unlock()
	if after != nil {
		after()
	}
	return verdict, err
}

// afterNextVerify runs fn between a comparison and what follows from it.
func (p *passwords) afterNextVerify(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = fn
}

// tokens writes what it grants in plain text.
type tokens struct{}

func (tokens) Issue(g auth.Grant) (string, error) {
	text, err := json.Marshal(g)
	return string(text), err
}

// granted reads what an access token of tokens says.
func granted(t *testing.T, access string) auth.Grant {
	t.Helper()
	var g auth.Grant
	if err := json.Unmarshal([]byte(access), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// newContext returns a context that ends with the test at the latest.
func newContext(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), time.Minute)
}

// The changes of an administrator, made by the service itself.

func (h *harness) Lock(ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
	return h.By("").Lock(ctx, id, etag)
}

func (h *harness) Unlock(ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
	return h.By("").Unlock(ctx, id, etag)
}

func (h *harness) Deactivate(ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
	return h.By("").Deactivate(ctx, id, etag)
}

func (h *harness) Reactivate(ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
	return h.By("").Reactivate(ctx, id, etag)
}
