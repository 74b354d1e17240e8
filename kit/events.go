package kit

import (
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/settings"
)

// Events is the settings of a service that has an event log.
type Events struct {
	EventRetention time.Duration `help:"How long events are kept. Whoever follows them can resume from that far back; 0 means for ever." default:"720h"`
	EventLimit     int64         `help:"How many events are kept; 0 means any number. Looked after once a minute, so that for that long there are more." default:"0"`
}

// Validate finds settings that cannot be meant.
func (e *Events) Validate() []settings.Problem {
	var problems []settings.Problem
	if e.EventRetention < 0 {
		problems = append(problems, settings.Wrong(&e.EventRetention, "must not be negative"))
	}
	if e.EventLimit < 0 {
		problems = append(problems, settings.Wrong(&e.EventLimit, "must not be negative"))
	}
	return problems
}

// Retention returns what is kept of the log.
func (e *Events) Retention() eventlog.Retention {
	return eventlog.Retention{MaxAge: e.EventRetention, MaxEvents: e.EventLimit}
}
