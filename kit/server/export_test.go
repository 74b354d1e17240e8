package server

// Steps returns the names of the steps, outermost first.
func Steps() []string {
	var names []string
	for _, st := range new(Server).path() {
		names = append(names, st.name)
	}
	return names
}
