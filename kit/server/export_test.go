package server

import "github.com/concordat-dev/concordat/kit/fault"

// Steps returns the names of the steps, outermost first.
func Steps() []string {
	var names []string
	for _, st := range new(Server).path() {
		names = append(names, st.name)
	}
	return names
}

// Faults are what the path answers by itself.
var Faults = []*fault.Fault{errTooLarge, errHopeless, errTimeout, errUnknownMethod, errInvalid, errRate, errMalformed, errOverloaded}
