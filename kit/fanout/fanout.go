// Package fanout has things made once for all who are told the same.
package fanout

import "sync"

// mostKinds bounds what a Memo keeps. Watchers of different things get different messages of one event, and there may
// be as many kinds as watchers.
const mostKinds = 8

// Memo keeps what was made of one event, by a key that says for whom. It lives as long as the event is on its way to
// somebody. The zero Memo is ready; a nil one keeps nothing. It is safe for concurrent use, and must not be copied.
type Memo struct {
	mu   sync.Mutex
	made []made
}

type made struct {
	key   string
	value any
}

// Get returns what make returned when it was first called for the key, and calls it where it was not: with the Memo
// locked, so that it should be quick, and must not use the Memo. An error is not kept. What is beyond a few keys is not
// kept either.
func Get[V any](m *Memo, key string, make func() (V, error)) (V, error) {
	if m == nil {
		return make()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, was := range m.made {
		if v, ok := was.value.(V); ok && was.key == key {
			return v, nil
		}
	}
	v, err := make()
	if err == nil && len(m.made) < mostKinds {
		m.made = append(m.made, made{key, v})
	}
	return v, err
}
