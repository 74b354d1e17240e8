package usage

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Version is the version of the schema of a Snapshot. Fields may be added under the same version; a field that
// changes its meaning or goes away makes the next.
const Version = 1

// Direction says which way a message went.
type Direction uint8

const (
	// Request is the way to the service.
	Request Direction = iota
	// Response is the way back.
	Response
)

var directions = [...]string{Request: "request", Response: "response"}

// Snapshot is what a Recorder has counted. Its JSON is that of /usage at the admin port.
type Snapshot struct {
	// Version is the version of this schema.
	Version int `json:"version"`
	// Service is the name of the service, or of the program that holds several.
	Service string `json:"service"`
	// Since is when the counting began, and TakenAt when the snapshot was taken: the time that it tells of.
	Since   time.Time `json:"since"`
	TakenAt time.Time `json:"taken_at"`
	// SampledOneIn is how many messages one was looked at of. 0 means that nothing was counted: the snapshot says
	// nothing.
	SampledOneIn uint32 `json:"sampled_one_in"`
	// Dropped is how often something was not counted for want of room. Above 0, what is missing may have been used.
	Dropped uint64 `json:"dropped"`
	// Truncated is how many messages were not looked at to their end, because they were too deep or too large.
	Truncated uint64 `json:"truncated"`
	// Totals has the messages of each caller, method and direction, in the order of method, caller and direction.
	Totals []Total `json:"totals"`
	// Entries has the fields that were filled in, in the order of method, caller, direction and path.
	Entries []Entry `json:"entries"`
}

// Total is how many messages there were between a caller and a method.
type Total struct {
	// Caller is the name in the certificate of the program at the other end of the connection, "" where that has none
	// of ours.
	Caller string `json:"caller"`
	// Method is the full name of the method, such as "/users.v1.UserService/GetUser".
	Method    string    `json:"method"`
	Direction Direction `json:"direction"`
	// Messages is how many there were, and Sampled how many of them were looked at.
	Messages uint64 `json:"messages"`
	Sampled  uint64 `json:"sampled"`
	// LastSeen is when the last one was looked at, which is up to a minute before the last one; zero where none was.
	LastSeen time.Time `json:"last_seen,omitzero"`
}

// Entry is a field that was filled in.
type Entry struct {
	Caller    string    `json:"caller"`
	Method    string    `json:"method"`
	Direction Direction `json:"direction"`
	// Path is where the field stands, from the request or the response: "user.email". It has no indices and no keys.
	Path string `json:"path"`
	// Message is the full name of the message that the field belongs to, "users.v1.User", and Field its name there,
	// "email"; "unknown:7" is the field 7 of a contract that the service does not know.
	Message string `json:"message"`
	Field   string `json:"field"`
	// Count is how many of the messages that were looked at had it, however often.
	Count uint64 `json:"count"`
	// LastSeen is when the last of them was.
	LastSeen time.Time `json:"last_seen"`
}

// String returns "request" or "response".
func (d Direction) String() string {
	if int(d) >= len(directions) {
		return fmt.Sprintf("Direction(%d)", uint8(d))
	}
	return directions[d]
}

// MarshalText implements encoding.TextMarshaler.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It fails on everything but "request" and "response".
func (d *Direction) UnmarshalText(text []byte) error {
	i := slices.Index(directions[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is no direction", text)
	}
	*d = Direction(i)
	return nil
}

// Snapshot returns what has been counted until now. Calls go on meanwhile, so that what is in it may be of moments
// that are apart by as long as it takes.
func (r *Recorder) Snapshot() Snapshot {
	s := Snapshot{
		Version: Version, Service: r.cfg.Service, Since: second(r.since), TakenAt: second(r.cfg.Clock.Now()), SampledOneIn: r.cfg.OneIn,
		Totals: []Total{}, Entries: []Entry{},
	}
	for name, m := range r.all() {
		for caller, t := range *m.callers.Load() {
			for d := range t.sides {
				t.sides[d].append(&s, caller, name, Direction(d))
			}
		}
	}
	s.Dropped, s.Truncated = r.dropped.Load(), r.truncated.Load()
	slices.SortFunc(s.Totals, func(a, b Total) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Direction, b.Direction))
	})
	slices.SortFunc(s.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.Path, b.Path))
	})
	return s
}

func (r *Recorder) all() map[string]*Method {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.methods)
}

// append adds what the side has counted.
func (s *side) append(to *Snapshot, caller, method string, d Direction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages := s.messages.Load()
	if messages == 0 {
		return
	}
	t := Total{Caller: caller, Method: method, Direction: d, Messages: messages, Sampled: s.sampled}
	if s.sampled > 0 {
		t.LastSeen = at(s.last)
	}
	to.Totals = append(to.Totals, t)
	s.root.append(to, Entry{Caller: caller, Method: method, Direction: d})
}

// append adds the fields at the node and below, each as like with its own in it.
func (n *node) append(to *Snapshot, like Entry) {
	for _, f := range n.fields {
		e := like
		e.Path, e.Message, e.Field, e.Count, e.LastSeen = f.path, string(f.message), f.name, f.count, at(f.last)
		to.Entries = append(to.Entries, e)
		if f.below != nil {
			f.below.append(to, like)
		}
	}
}

// second returns a time as it is shown: of UTC, to the second.
func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func at(nanoseconds int64) time.Time { return second(time.Unix(0, nanoseconds)) }
