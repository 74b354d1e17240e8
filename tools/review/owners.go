package review

import (
	"path"
	"regexp"
	"strings"
)

// owners says who owns which file, as CODEOWNERS does: the last line that matches decides
// (https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners).
type owners struct {
	lines []ownerLine
	below string // where the workspace lies in the repository
}

type ownerLine struct {
	pattern *regexp.Regexp
	owners  []string
}

// parseOwners reads a CODEOWNERS file. A line that is no pattern owns nothing.
func parseOwners(text, below string) owners {
	o := owners{below: below}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "[") {
			continue
		}
		if pattern, err := regexp.Compile(ownerPattern(words[0])); err == nil {
			o.lines = append(o.lines, ownerLine{pattern, words[1:]})
		}
	}
	return o
}

// ownerPattern writes a pattern of CODEOWNERS, which are those of gitignore without negation, as a regular expression.
func ownerPattern(pattern string) string {
	anchored := strings.Contains(strings.TrimSuffix(pattern, "/"), "/")
	folder := strings.HasSuffix(pattern, "/")
	var b strings.Builder
	b.WriteString("^")
	if !anchored {
		b.WriteString("(.*/)?")
	}
	rest := strings.Trim(pattern, "/")
	for len(rest) > 0 {
		switch {
		case strings.HasPrefix(rest, "**/"):
			b.WriteString("(.*/)?")
			rest = rest[3:]
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			rest = rest[2:]
		case rest[0] == '*':
			b.WriteString("[^/]*")
			rest = rest[1:]
		case rest[0] == '?':
			b.WriteString("[^/]")
			rest = rest[1:]
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		}
	}
	switch {
	case folder:
		b.WriteString("/.*$")
	case strings.HasSuffix(pattern, "/*"): // the files of a folder, and not those below
		b.WriteString("$")
	default:
		b.WriteString("(/.*)?$")
	}
	return b.String()
}

// of returns the owners of a file, by its path from the root of the workspace.
func (o owners) of(file string) []string {
	file = strings.TrimPrefix(path.Join(o.below, file), "/")
	for n := len(o.lines) - 1; n >= 0; n-- {
		if o.lines[n].pattern.MatchString(file) {
			return o.lines[n].owners
		}
	}
	return nil
}
