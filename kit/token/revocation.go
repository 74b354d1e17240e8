package token

import (
	"time"

	"github.com/concordat-dev/concordat/kit/identity"
)

// Revocation says which tokens are good no more: all that were issued at a time or before it, to one session, to a user,
// or to everybody.
type Revocation struct {
	// UserID is whose tokens these are; "" means everybody's, and then the sessions count for nothing.
	UserID string
	// SessionID is the session that has ended; "" means every session of the user but Except.
	SessionID string
	// Except is the session that goes on where all others ended; "" means none.
	Except string
	// At is when it happened, by the clock that issued the tokens.
	At time.Time
}

// Concerns reports whether the token that the user came out of is among those that the revocation speaks of.
func (r Revocation) Concerns(user *identity.User) bool {
	switch {
	case user.IssuedAt.After(r.At):
		return false
	case r.UserID == "":
		return true
	case r.UserID != user.ID:
		return false
	case r.SessionID != "":
		return r.SessionID == user.SessionID
	default:
		return r.Except == "" || r.Except != user.SessionID
	}
}

// maxRevoked bounds how many revocations are remembered. Each takes about 300 bytes.
const maxRevoked = 1 << 16

// Revoke refuses the tokens from now on, known ones too, and ends what watches them (WhenRevoked) before it returns. It may
// be told the same again, and older revocations after newer ones.
//
// A revocation is forgotten once MaxLife has passed since At: no token that it concerns is left. Beyond 65,536 of
// them the oldest make room: every token that was issued up to the oldest one's At is then refused, whoever's it is, so
// that its owner refreshes it. Nothing revoked comes back.
func (v *Verifier) Revoke(r Revocation) {
	v.mu.Lock()
	everybody := v.revoked.everybody
	if !v.revoked.add(r, v.cfg.Clock.Now()) {
		v.mu.Unlock()
		return
	}
	if v.revoked.everybody != everybody {
		r.UserID = ""
	}
	ended := v.revoked.ended(r.UserID)
	v.mu.Unlock()
	for _, f := range ended {
		f()
	}
}

// WhenRevoked calls f once, when the token is revoked that the user came out of: at once where that has happened. It calls
// from the goroutine of whoever revokes, so f must not wait. stop ends it, and is called when the answer does not matter
// any more.
func (v *Verifier) WhenRevoked(user *identity.User, f func()) (stop func()) {
	w := &watch{user: user, f: f}
	v.mu.Lock()
	gone := v.revoked.has(user)
	if !gone {
		v.revoked.watch(w)
	}
	v.mu.Unlock()
	if gone {
		f()
		return func() {}
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.revoked.unwatch(w)
	}
}

// Revoked returns how many revocations are remembered.
func (v *Verifier) Revoked() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.revoked.sessions) + len(v.revoked.users)
}

// revoked is what is remembered of revocations, and who waits for them. The caller holds the lock of the Verifier.
type revoked struct {
	everybody time.Time // tokens up to here
	sessions  map[sessionKey]time.Time
	users     map[string]userEnd
	order     []Revocation // what the maps hold, and what was replaced in them; oldest first
	watches   map[string]map[*watch]struct{}
}

// sessionKey is a session with its user: a session id alone is taken from nobody's word.
type sessionKey struct{ user, session string }

// userEnd is the latest time at which all sessions of a user ended but one, and when that one last was among those that
// ended: a token of such a session may still have been used where that was not yet known.
type userEnd struct {
	at     time.Time
	except string
	after  time.Time // of the session except, tokens up to here are revoked
}

// and returns what is revoked by either of the two.
func (e userEnd) and(o userEnd) userEnd {
	if o.at.After(e.at) {
		e, o = o, e
	}
	ended := o.after
	if o.except == "" || o.except != e.except {
		ended = o.at
	}
	if ended.After(e.after) {
		e.after = ended
	}
	return e
}

// watch is somebody who waits for the end of a token.
type watch struct {
	user *identity.User
	f    func()
}

func newRevoked() revoked {
	return revoked{
		sessions: make(map[sessionKey]time.Time),
		users:    make(map[string]userEnd),
		watches:  make(map[string]map[*watch]struct{}),
	}
}

// has reports whether the token is revoked that the user came out of.
func (r *revoked) has(user *identity.User) bool {
	if !user.IssuedAt.After(r.everybody) {
		return true
	}
	if len(r.sessions) > 0 {
		if at, ok := r.sessions[sessionKey{user.ID, user.SessionID}]; ok && !user.IssuedAt.After(at) {
			return true
		}
	}
	if len(r.users) > 0 {
		if end, ok := r.users[user.ID]; ok && !user.IssuedAt.After(end.at) {
			return end.except == "" || end.except != user.SessionID || !user.IssuedAt.After(end.after)
		}
	}
	return false
}

// add remembers a revocation and returns false where it says nothing new.
func (r *revoked) add(v Revocation, now time.Time) bool {
	r.forget(now)
	if !now.Before(v.At.Add(MaxLife)) || !v.At.After(r.everybody) {
		return false
	}
	switch {
	case v.UserID == "":
		r.everybody = v.At
		return true
	case v.SessionID != "":
		key := sessionKey{v.UserID, v.SessionID}
		if at, ok := r.sessions[key]; ok && !v.At.After(at) {
			return false
		}
		r.sessions[key] = v.At
	default:
		old := r.users[v.UserID]
		end := old.and(userEnd{at: v.At, except: v.Except})
		if r.users[v.UserID] = end; !end.at.After(old.at) {
			return end != old
		}
	}
	if r.order = append(r.order, v); len(r.order) > maxRevoked {
		oldest := r.drop()
		if oldest.At.After(r.everybody) {
			r.everybody = oldest.At
		}
	}
	return true
}

// forget drops what concerns no token that is left.
func (r *revoked) forget(now time.Time) {
	for len(r.order) > 0 && !now.Before(r.order[0].At.Add(MaxLife)) {
		r.drop()
	}
}

// drop removes the oldest revocation and returns it.
func (r *revoked) drop() Revocation {
	v := r.order[0]
	r.order[0] = Revocation{} // let go of its text
	r.order = r.order[1:]
	if key := (sessionKey{v.UserID, v.SessionID}); v.SessionID != "" {
		if r.sessions[key].Equal(v.At) {
			delete(r.sessions, key)
		}
	} else if r.users[v.UserID].at.Equal(v.At) {
		delete(r.users, v.UserID)
	}
	return v
}

// ended takes out what watches tokens of the user, or of everybody, that are revoked now.
func (r *revoked) ended(userID string) (calls []func()) {
	take := func(watches map[*watch]struct{}) {
		for w := range watches {
			if r.has(w.user) {
				calls = append(calls, w.f)
				r.unwatch(w)
			}
		}
	}
	if userID != "" {
		take(r.watches[userID])
		return calls
	}
	for _, watches := range r.watches {
		take(watches)
	}
	return calls
}

func (r *revoked) watch(w *watch) {
	if r.watches[w.user.ID] == nil {
		r.watches[w.user.ID] = make(map[*watch]struct{})
	}
	r.watches[w.user.ID][w] = struct{}{}
}

func (r *revoked) unwatch(w *watch) {
	delete(r.watches[w.user.ID], w)
	if len(r.watches[w.user.ID]) == 0 {
		delete(r.watches, w.user.ID)
	}
}
