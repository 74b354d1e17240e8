package kit

import (
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
)

func TestTheSettingsSayWhichEventsAreKept(t *testing.T) {
	e := Events{EventRetention: time.Hour, EventLimit: 7}
	if p := e.Validate(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
	if got, want := e.Retention(), (eventlog.Retention{MaxAge: time.Hour, MaxEvents: 7}); got != want {
		t.Errorf("what is kept: %+v, want %+v", got, want)
	}
	e = Events{EventRetention: -1, EventLimit: -1}
	if p := e.Validate(); len(p) != 2 {
		t.Errorf("problems: %v", p)
	}
}
