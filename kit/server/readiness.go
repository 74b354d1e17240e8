package server

import (
	"errors"
)

// Check is what one of the checks found.
type Check struct {
	// Name is that of Config.Checks, or "serving": whether the server takes calls at all.
	Name string
	// Err is what is wrong, nil for nothing. Its text is for operators.
	Err error
}

var errStarting = errors.New("the server has not begun to serve")

// Readiness returns what the checks found when they were last asked, every few seconds, in the order of their names: what
// the health service says, with its reasons. "serving" comes first.
func (s *Server) Readiness() []Check {
	serving := Check{Name: "serving"}
	checks := s.found.Load()
	switch {
	case s.drain.Err() != nil:
		serving.Err = ErrDraining
	case checks == nil:
		serving.Err = errStarting
	}
	list := []Check{serving}
	if checks != nil {
		list = append(list, *checks...)
	}
	return list
}
