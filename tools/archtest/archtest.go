// Package archtest proves who may import whom, over every module of go.work.
//
// The rules are data (rules.go), each with its reason. Two kinds exist: a limit names everything
// that a room may import itself, and a ban names what a room must not reach, directly or through
// others. The check also fails where the rules have gone blind: a pattern that matches no package,
// or a package that stands in no room.
//
// Only files that a default build of this platform compiles are seen: code behind build tags is not.
//
// Go's test cache does not see the files of other modules, so run this package with -count=1.
package archtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A pkg is a package and what it imports, by import path.
type pkg struct {
	imports     []string // by the package itself
	testImports []string // by its tests, those in package foo_test included
	standard    bool     // part of the Go distribution
}

// A graph is every package of the workspace and all that they need, by import path.
type graph map[string]pkg

// A limit names all that a room may import itself. The standard library is always allowed; tests
// are not held to it.
type limit struct {
	from   []pattern // the room
	ours   []pattern // our packages that it may import
	others []pattern // packages of other modules that it may import
	why    string
}

// A ban names what a room must not reach: neither itself, nor through what it imports.
type ban struct {
	from  []pattern
	never []pattern
	tests bool // what the room's tests import themselves is held to it too
	why   string
}

// A pattern is an import path; those of ours are written without the prefix of our modules. A `*`
// stands for any text within one segment, a last segment `...` for anything below, the path itself
// included. A leading `!` takes its matches out of the list that it stands in. A
// pattern that contains `{service}` stands for one pattern per service.
type pattern string

// A violation is one import path that breaks a rule.
type violation struct {
	chain []string // from the package to what it must not reach
	why   string
}

// String prints the chain with the prefix of our modules cut off.
func (v violation) String() string {
	short := make([]string, len(v.chain))
	for i, path := range v.chain {
		short[i] = strings.TrimPrefix(path, prefix)
	}
	return fmt.Sprintf("%s\n\t%s", strings.Join(short, "\n\t→ "), v.why)
}

// prefix is what the import paths of all our packages begin with.
const prefix = "github.com/concordat-dev/concordat/"

// check returns every violation, sorted by chain.
func check(g graph, limits []limit, bans []ban) []violation {
	var found []violation
	for _, path := range slices.Sorted(maps.Keys(g)) {
		if !isOurs(path) {
			continue
		}
		for _, l := range limits {
			if matchAny(l.from, path) {
				found = append(found, l.broken(g, path)...)
			}
		}
		for _, b := range bans {
			if matchAny(b.from, path) {
				found = append(found, b.broken(g, path)...)
			}
		}
	}
	slices.SortFunc(found, func(a, b violation) int {
		return cmp.Or(slices.Compare(a.chain, b.chain), strings.Compare(a.why, b.why))
	})
	return found
}

// broken returns each import of path that the limit does not allow.
func (l limit) broken(g graph, path string) []violation {
	var found []violation
	for _, to := range g[path].imports {
		allowed := l.others
		if isOurs(to) {
			allowed = l.ours
		}
		if !g[to].standard && !matchAny(allowed, to) {
			found = append(found, violation{[]string{path, to}, l.why})
		}
	}
	return found
}

// broken returns, for each banned package that path reaches, the shortest chain to it. What a
// banned package imports in turn is not searched: the first forbidden step is the one to mend.
func (b ban) broken(g graph, path string) []violation {
	var found []violation
	first := g[path].imports
	if b.tests {
		first = slices.Concat(first, g[path].testImports)
	}
	queue := [][]string{}
	seen := map[string]bool{path: true}
	visit := func(chain []string, next []string) {
		for _, to := range next {
			if seen[to] {
				continue
			}
			seen[to] = true
			longer := append(slices.Clone(chain), to)
			if matchAny(b.never, to) {
				found = append(found, violation{longer, b.why})
				continue
			}
			queue = append(queue, longer)
		}
	}
	visit([]string{path}, first)
	for len(queue) > 0 {
		chain := queue[0]
		queue = queue[1:]
		visit(chain, g[chain[len(chain)-1]].imports)
	}
	return found
}

// dead returns what the rules no longer see: patterns of ours that match no package, rooms whose
// packages are all taken out by other patterns, and packages of ours that stand in no limit. Each
// is named once, sorted.
func dead(g graph, limits []limit, bans []ban) []string {
	blind := map[string]bool{}
	room := map[string]bool{}
	for _, l := range limits {
		deadLists(g, blind, l.from, l.ours)
		for path := range g {
			if isOurs(path) && matchAny(l.from, path) {
				room[path] = true
			}
		}
	}
	for _, b := range bans {
		deadLists(g, blind, b.from, b.never)
	}
	for path := range g {
		if isOurs(path) && !room[path] {
			blind[fmt.Sprintf("package %s stands in no room: give it one in rules.go", strings.TrimPrefix(path, prefix))] = true
		}
	}
	return slices.Sorted(maps.Keys(blind))
}

// deadLists judges the from list of a rule and the list of what it allows or bans. Patterns for
// packages of others are not judged in the second: that none of them is used any more is the best
// that can happen to a ban, and does no harm to a limit.
func deadLists(g graph, blind map[string]bool, from, to []pattern) {
	alive := true
	for _, p := range slices.Concat(from, to) {
		p = pattern(strings.TrimPrefix(string(p), "!"))
		if p != anything && (p.ours() || slices.Contains(from, p)) && !anyMatch(g, []pattern{p}) {
			blind[fmt.Sprintf("pattern %s matches no package", p)] = true
			alive = false
		}
	}
	if alive && !anyMatch(g, from) {
		blind[fmt.Sprintf("the room %s is empty", from)] = true
	}
}

func anyMatch(g graph, list []pattern) bool {
	for path := range g {
		if matchAny(list, path) {
			return true
		}
	}
	return false
}

func isOurs(path string) bool { return strings.HasPrefix(path, prefix) }
