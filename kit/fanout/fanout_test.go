package fanout

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestWhatManyAskForIsMadeOnceForEachKey(t *testing.T) {
	var m Memo
	var calls atomic.Int64
	var wg sync.WaitGroup
	for i := range 100 {
		key := strconv.Itoa(i % 4)
		wg.Go(func() {
			v, err := Get(&m, key, func() (string, error) { calls.Add(1); return "for " + key, nil })
			if err != nil || v != "for "+key {
				t.Errorf("%s: %q, %v", key, v, err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 4 {
		t.Errorf("made %d times for 4 keys", n)
	}
}

func TestAnErrorIsNotKept(t *testing.T) {
	var m Memo
	broken := errors.New("broken")
	if _, err := Get(&m, "a", func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if v, err := Get(&m, "a", func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("after an error: %d, %v", v, err)
	}
}

func TestWhatIsKeptHasABound(t *testing.T) {
	var m Memo
	for i := range 100 {
		key := strconv.Itoa(i)
		for range 2 {
			if v, err := Get(&m, key, func() (string, error) { return key, nil }); v != key || err != nil {
				t.Fatalf("%s: %q, %v", key, v, err)
			}
		}
	}
	if len(m.made) != mostKinds {
		t.Errorf("%d are kept, want %d", len(m.made), mostKinds)
	}
}

func TestWithoutAMemoEverythingIsMadeAnew(t *testing.T) {
	calls := 0
	for range 2 {
		if _, err := Get(nil, "a", func() (int, error) { calls++; return calls, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 2 {
		t.Errorf("made %d times", calls)
	}
}
