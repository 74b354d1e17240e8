package transcript

import (
	"fmt"
	"slices"
	"strings"
)

// Words is a vocabulary to look names up in.
type Words map[string]bool

// NewWords returns the vocabulary that a probe has written.
func NewWords(names []string) Words {
	w := make(Words, len(names))
	for _, n := range names {
		w[n] = true
	}
	return w
}

// knows reports whether a version with these words has all fields of an entry. What is not ours, as google.rpc.Status,
// is known to all.
func (w Words) knows(e Entry) bool {
	return !slices.ContainsFunc(e.Fields, func(name string) bool { return ours(name) && !w[name] })
}

func ours(name string) bool { return !strings.HasPrefix(name, "google.") }

// Misread holds what a client saw against what the server's own client saw for the same calls, and returns what it read
// otherwise: a field that it knows and did not see, saw with another value, or saw where the server's own client saw
// none. Fields and enum values that its version does not have yet are no mistake. Where the server that answers may be
// a later one than that of which own was seen, writer is what the earlier one knows: fields that it does not are no
// mistake either. Else writer is nil.
func Misread(client Words, saw, own []Entry, writer Words) []string {
	var wrong []string
	mine := byPath(saw)
	for _, e := range own {
		got, ok := mine[e.Path]
		delete(mine, e.Path)
		switch {
		case !client.knows(e):
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s is not seen, the server's own client sees %q", e.Path, e.Value))
		case got.Value == e.Value, newer(client, got.Value, e.Value):
		default:
			wrong = append(wrong, fmt.Sprintf("%s is seen as %q, the server's own client sees %q", e.Path, got.Value, e.Value))
		}
	}
	for _, e := range saw {
		if _, left := mine[e.Path]; left && (writer == nil || writer.knows(e)) {
			wrong = append(wrong, fmt.Sprintf("%s is seen as %q, the server's own client sees none", e.Path, e.Value))
		}
	}
	return wrong
}

// newer reports whether a number without a name is what became of an enum value that the client does not have yet.
func newer(client Words, got, own string) bool {
	return strings.HasPrefix(got, "#") && !strings.HasPrefix(own, "#") && strings.Contains(own, ".") && !client[own]
}

// Serves reports whether a version with these words has a method, given as "package.Service/Method".
func (w Words) Serves(method string) bool { return w[strings.ReplaceAll(method, "/", ".")] }

// Lost returns what a client saw of its own server and does not see of another one at all, though that knows the field:
// what that no longer tells. A field that the other version does not have is for the review of the contract to judge.
func Lost(server Words, saw, before []Entry) []string {
	var lost []string
	now := byPath(saw)
	for _, e := range before {
		if _, ok := now[e.Path]; !ok && server.knows(e) {
			lost = append(lost, fmt.Sprintf("%s was told by the other server (%q) and is not by this", e.Path, e.Value))
		}
	}
	return lost
}

// Changed returns what a client sees of one server with another value than of the other. That is what a change may be
// for, so it is something to read and no mistake by itself.
func Changed(saw, before []Entry) []string {
	var changed []string
	now := byPath(saw)
	for _, e := range before {
		if got, ok := now[e.Path]; ok && got.Value != e.Value {
			changed = append(changed, fmt.Sprintf("%s was %q of the other server and is %q of this", e.Path, e.Value, got.Value))
		}
	}
	return changed
}

func byPath(entries []Entry) map[string]Entry {
	m := make(map[string]Entry, len(entries))
	for _, e := range entries {
		m[e.Path] = e
	}
	return m
}
