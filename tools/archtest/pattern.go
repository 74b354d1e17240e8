package archtest

import (
	"path"
	"slices"
	"strings"
)

const (
	// anything matches every package.
	anything pattern = "..."
	// service is the part of a pattern that stands for the name of each service.
	service = "{service}"
)

// rooms are the top folders of the repository that hold modules: what a pattern of ours begins with.
func rooms() []string { return []string{"gen", "kit", "services", "tools", "proof"} }

// ours tells whether p is about packages of ours.
func (p pattern) ours() bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(string(p), "!"), "/")
	return slices.Contains(rooms(), first)
}

// match tells whether p matches an import path. It does not look at a leading `!`.
func (p pattern) match(importPath string) bool {
	if p == anything {
		return true
	}
	if p.ours() {
		short, found := strings.CutPrefix(importPath, prefix)
		if !found {
			return false
		}
		importPath = short
	}
	want := strings.Split(strings.TrimPrefix(string(p), "!"), "/")
	have := strings.Split(importPath, "/")
	if want[len(want)-1] == "..." {
		want = want[:len(want)-1]
		have = have[:min(len(have), len(want))]
	}
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// matchAny tells whether a list matches: one of its patterns does and none with a `!` does.
func matchAny(list []pattern, importPath string) bool {
	found := false
	for _, p := range list {
		if !p.match(importPath) {
			continue
		}
		if strings.HasPrefix(string(p), "!") {
			return false
		}
		found = true
	}
	return found
}

// perService returns list with {service} replaced by a name.
func perService(list []pattern, name string) []pattern {
	out := make([]pattern, len(list))
	for i, p := range list {
		out[i] = pattern(strings.ReplaceAll(string(p), service, name))
	}
	return out
}

// expand returns the rules with one rule per service where a rule speaks of {service}.
func expand(limits []limit, bans []ban, services []string) ([]limit, []ban) {
	var outLimits []limit
	for _, l := range limits {
		if !mentionsService(l.from) {
			outLimits = append(outLimits, l)
			continue
		}
		for _, name := range services {
			outLimits = append(outLimits, limit{perService(l.from, name), perService(l.ours, name), perService(l.others, name), l.why})
		}
	}
	var outBans []ban
	for _, b := range bans {
		if !mentionsService(b.from) {
			outBans = append(outBans, b)
			continue
		}
		for _, name := range services {
			outBans = append(outBans, ban{perService(b.from, name), perService(b.never, name), b.tests, b.why})
		}
	}
	return outLimits, outBans
}

func mentionsService(list []pattern) bool {
	return slices.ContainsFunc(list, func(p pattern) bool { return strings.Contains(string(p), service) })
}
