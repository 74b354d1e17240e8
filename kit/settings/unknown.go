package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// isForeign says whether a variable belongs to another service: one of the Services, but neither this program
// nor one that it holds.
func (m *model) isForeign(name string) bool {
	owner, rest, _ := strings.Cut(strings.TrimPrefix(name, envPrefix), "_")
	return rest != "" && slices.Contains(Services(), strings.ToLower(owner)) && !m.owns(owner)
}

// owns says whether the program reads variables of this owner, such as "USERS".
func (m *model) owns(owner string) bool {
	prefix := envPrefix + owner + "_"
	if strings.ToUpper(m.program.Name) == owner {
		return true
	}
	return slices.ContainsFunc(m.settings, func(s *setting) bool { return strings.HasPrefix(s.env, prefix) })
}

// The variables that Kubernetes puts into every container for each service of the namespace.
var (
	linkHost  = regexp.MustCompile(`_SERVICE_HOST$`)
	linkPort  = regexp.MustCompile(`_SERVICE_PORT(_[A-Z0-9_]+)?$`)
	linkURL   = regexp.MustCompile(`_PORT(_[0-9]+_(TCP|UDP|SCTP))?$`)
	linkPart  = regexp.MustCompile(`_PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)$`)
	isURL     = regexp.MustCompile(`^(tcp|udp|sctp)://`)
	isDecimal = regexp.MustCompile(`^[0-9]+$`)
)

// isServiceLink says whether a variable is one that Kubernetes injects, such as
// CONCORDAT_USERS_PORT=tcp://10.0.0.1:50051 for a Service called concordat-users. Nobody set it, so it is neither
// unknown nor a value of ours.
func isServiceLink(name, value string) bool {
	switch {
	case linkHost.MatchString(name), linkPart.MatchString(name):
		return true
	case linkPort.MatchString(name):
		return isDecimal.MatchString(value)
	default:
		return linkURL.MatchString(name) && isURL.MatchString(value)
	}
}

// isLinkName says whether Kubernetes may inject a variable of this name with a value that a setting could have too.
func isLinkName(name string) bool {
	return linkHost.MatchString(name) || linkPart.MatchString(name) || linkPort.MatchString(name)
}

// nearest returns the end of a sentence that names the setting whose variable is most like name. A service that
// is misspelt is looked for among all services, because its settings may not be known here.
func (m *model) nearest(name string) string {
	owner, rest, _ := strings.Cut(strings.TrimPrefix(name, envPrefix), "_")
	if !m.owns(owner) {
		for _, s := range Services() {
			if s = strings.ToUpper(s); rest != "" && distance(owner, s) <= 2 {
				return fmt.Sprintf("; is %s%s_%s meant?", envPrefix, s, rest)
			}
		}
	}
	var best *setting
	least := 0
	for _, s := range m.settings {
		if d := distance(name, s.env); best == nil || d < least {
			best, least = s, d
		}
	}
	if best == nil {
		return ""
	}
	return fmt.Sprintf("; the nearest is %s (--%s)", best.env, best.flag.Name)
}

// distance is how many letters must be added, dropped, changed or swapped with their neighbour to make b out of
// a.
func distance(a, b string) int {
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(last[j]+1, next[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}
