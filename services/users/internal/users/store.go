package users

import (
	"context"
	"time"
)

// CountExactly is up to how many users Store.Count counts exactly.
const CountExactly = 10_000

// Store keeps users. It is safe for concurrent use. Implementations pass storetest.Run.
//
// Times are kept to the microsecond. Texts are compared byte by byte, whatever the locale of the database. Beside what the
// methods name, each may return the error of ctx and the faults of the storage. A write that returns an error is not
// known to be stored; the same call may be repeated.
type Store interface {
	// Create stores the drafts in one transaction and says what became of each, in their order. A draft that cannot be
	// stored fails alone. Drafts count from first to last, so that a later one can clash with an earlier one.
	//
	// Of each draft that is made, the claim, the user and the event USER_CREATED commit together. A draft whose claim is
	// there already with the same digest is not made again: its outcome is the user that the first one made, as it is now.
	// The outcome is ErrRequestIDReused when the digest is another, else ErrIDTaken (with user_id), else ErrEmailTaken.
	//
	// With CheckOnly the outcomes are the same and nothing is stored.
	Create(ctx context.Context, drafts []Draft, mode Mode) ([]Outcome, error)

	// Get returns a user, or ErrNotFound (with user_id).
	Get(ctx context.Context, id ID) (User, error)

	// BatchGet returns those of the ids that there are, all of one moment, in any order. The ids are distinct and at most
	// MaxBatchGet.
	BatchGet(ctx context.Context, ids []ID) ([]User, error)

	// Change changes one user in one transaction and returns it as it is then.
	//
	// First, where the claim is not zero, the claim decides: one that is there already with the same digest means that
	// the change was made before, and Change returns the user as it is now; with another digest it returns
	// ErrRequestIDReused. Then it reads the user, or returns ErrNotFound (with user_id), and holds it so that nobody else changes
	// it meanwhile, and calls Apply. An error of Apply is returned as it is, and nothing is stored.
	//
	// A user that Apply returns unchanged (User.Equal) keeps its row and has no event; the claim is stored. Otherwise the row, the
	// event and the claim commit together, or it returns ErrEmailTaken, and nothing is stored. The event happened at
	// UpdatedAt.
	//
	// A change that erases the user (User.Erased) removes everything personal with it: from the row, from every event of
	// the user in the log, both before and after (User.Scrubbed is what may stay); and from the claims on this user, of Create too,
	// their digests, because a digest of an email can be guessed. A claim without digest equals every request.
	//
	// With CheckOnly the result is the same and nothing is stored.
	Change(ctx context.Context, c Change) (User, error)

	// List returns up to q.Limit users after q.After in the order of q. The work is bounded: where few users match, a page may have
	// fewer than Limit, even none, and still not be the last.
	List(ctx context.Context, q Query) (Page, error)

	// Count returns how many users a selection has: exactly up to CountExactly, and else an estimate above that, which may be that
	// of a few seconds ago. The work is bounded: in a very large store, or where others are being counted, a selection that is hard
	// to find may be estimated however few it has.
	Count(ctx context.Context, sel Selection) (Count, error)

	// Snapshot calls yield with each user of a selection, as they all are at one moment after the call, in the order
	// ByCreatedAt. It needs constant memory, however slow yield is, and does not keep others from reading and writing. An error
	// of yield ends it and is returned. It returns ErrTooManySnapshots, with RetryAfter, when too many are under way.
	Snapshot(ctx context.Context, sel Selection, yield func(User) error) error

	// Watch subscribes to the events of users who match before or after the event, in the order in which they were
	// committed, without gap or duplicate. USER_ERASED is for everyone, because what would say whether the user matched is gone.
	// The subscription must be closed; ctx is only for the call.
	//
	// It returns the faults of the event log: RESUME_TOKEN_INVALID, also for a token of another scope, and RESUME_TOKEN_TOO_OLD.
	Watch(ctx context.Context, w Watch) (Subscription, error)

	// EventsOf calls yield with each event of a user that the log still has, oldest first; Matches is unset. An error of yield
	// ends it and is returned. A user without events yields none.
	EventsOf(ctx context.Context, id ID, yield func(Event) error) error

	// Due returns up to limit ids of deleted users whose PurgeAt is not after a time and who are not erased, the oldest
	// PurgeAt first.
	Due(ctx context.Context, at time.Time, limit int) ([]ID, error)

	// PurgeClaims removes up to limit claims of changes whose At is before a time, the oldest first, and returns how many it
	// removed. The claims of Create stay as long as their users.
	PurgeClaims(ctx context.Context, before time.Time, limit int) (int, error)
}

// Mode says whether a write is one.
type Mode bool

// The modes.
const (
	// Commit stores.
	Commit Mode = false
	// CheckOnly says what Commit would do, and stores nothing.
	CheckOnly Mode = true
)

// Draft is a user who is ready to be stored.
type Draft struct {
	User  User
	Claim Claim
}

// Claim is what makes a repeated request the same request. Claims of Create and of Change have nothing to do with each
// other, nor have those of different callers.
type Claim struct {
	Caller    string // empty only in the zero Claim, which claims nothing
	RequestID string // canonical
	Digest    Digest
	At        time.Time
}

// Zero says whether the claim claims nothing.
func (c Claim) Zero() bool { return c.Caller == "" }

// Outcome is what became of a draft.
type Outcome struct {
	User User  // who was made, now or by an earlier equal request; zero if Err is set
	Err  error // ErrEmailInvalid, ErrEmailTaken, ErrIDTaken, ErrRequestIDReused, or nil
}

// Change is one change of one user.
type Change struct {
	Claim Claim
	ID    ID
	Mode  Mode
	// Apply returns the user as it shall be and what happened to it. It is pure: it may be called again after a conflict
	// with another transaction. The id stays, and the revision of a user that changes grows.
	Apply func(User) (User, EventType, error)
}

// Selection says which users are meant. Erased ones never are.
type Selection struct {
	Filter      Filter // nil means all
	ShowDeleted bool   // whether deleted users are meant too
}

// Has says whether a user is meant.
func (s Selection) Has(u User) bool {
	return Matches(s.Filter, u) && (s.ShowDeleted || u.State != Deleted)
}

// Query asks for a page of users.
type Query struct {
	Selection
	Order Order
	After Position // zero means from the beginning
	Limit int      // at least 1
}

// Page is a part of the users.
type Page struct {
	Users []User
	Next  Position // where the next page begins, which may be beyond the last user; zero when there are no more
}

// Count says how many users there are.
type Count struct {
	N         int
	Estimated bool // N is only about right: more than CountExactly, or too much work to know
}

// Watch says which events a subscription is for.
type Watch struct {
	Filter Filter // nil means all; Matches, so deleted users match and erased ones do not
	// Scope is what resume tokens are bound to: a token is good for the scope that it was given out in. It names the method and
	// the filter.
	Scope string
	// Token is where to resume; empty means from now on.
	Token string
}

// Subscription is a sequence of events. Next is for one goroutine; the other methods are safe beside it.
type Subscription interface {
	// Next waits for the next event and returns it with the token to resume right after it. It returns the error of ctx, after
	// which it may be called again, and the faults of the event log, such as CONSUMER_TOO_SLOW.
	Next(ctx context.Context) (Event, string, error)
	// Position returns the token of the point up to which everything was returned.
	Position() string
	// OnCut has fn called, on a goroutine of its own, when the subscription is cut because its reader did not keep up: with the
	// fault that Next returns after what is buffered. The last fn counts.
	OnCut(fn func(why error))
	// Close ends the subscription. Closing twice is allowed.
	Close()
}
