package review

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A disk knows where the files of the buf modules lie, and what buf.yaml says of them.
type disk struct {
	dir     string
	modules []string // folders from dir, the deepest first
	// checks are what buf.yaml says of breaking changes: for the workspace under "", and for each module that says
	// something itself, which then counts alone there.
	checks map[string]breaking
}

// workspace is what this program reads of buf.yaml; buf checks all of it.
type workspace struct {
	Modules []struct {
		Path     string   `yaml:"path"`
		Excludes []string `yaml:"excludes"`
		Breaking breaking `yaml:"breaking"`
	} `yaml:"modules"`
	Breaking breaking `yaml:"breaking"`
}

// breaking is a section of this name; its paths are from the folder with buf.yaml.
type breaking struct {
	Use            []string            `yaml:"use"`
	Except         []string            `yaml:"except"`
	Ignore         []string            `yaml:"ignore"`
	IgnoreOnly     map[string][]string `yaml:"ignore_only"`
	IgnoreUnstable bool                `yaml:"ignore_unstable_packages"`
}

// empty tells whether the section says nothing: then that of the workspace counts.
func (b breaking) empty() bool {
	return len(b.Use) == 0 && len(b.Except) == 0 && len(b.Ignore) == 0 && len(b.IgnoreOnly) == 0 && !b.IgnoreUnstable
}

// newDisk reads buf.yaml as far as it can: buf itself has compiled the workspace before.
func newDisk(dir string) disk {
	d := disk{dir: dir, checks: map[string]breaking{}}
	var w workspace
	if data, err := os.ReadFile(filepath.Join(dir, "buf.yaml")); err == nil {
		_ = yaml.NewDecoder(bytes.NewReader(data)).Decode(&w)
	}
	d.checks[""] = w.Breaking
	for _, m := range w.Modules {
		module := path.Clean(m.Path)
		d.modules = append(d.modules, module)
		if !m.Breaking.empty() {
			d.checks[module] = m.Breaking
		}
	}
	if len(d.modules) == 0 {
		d.modules = []string{"."}
	}
	slices.SortStableFunc(d.modules, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return d
}

// path returns where a file of a module lies from the root. A file that is gone is said to be where its folder is, else
// in the first module.
func (d disk) path(file string) string {
	if file == "" {
		return ""
	}
	for _, look := range []string{file, path.Dir(file)} {
		for _, module := range d.modules {
			if _, err := os.Stat(filepath.Join(d.dir, filepath.FromSlash(path.Join(module, look)))); err == nil {
				return path.Join(module, file)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(d.dir, filepath.FromSlash(file))); err == nil {
		return file
	}
	return path.Join(d.modules[0], file)
}

// checked returns what buf.yaml says of breaking changes of a file.
func (d disk) checked(file string) breaking {
	for _, module := range d.modules {
		if own, ok := d.checks[module]; ok && below(file, module) {
			return own
		}
		if below(file, module) {
			break
		}
	}
	return d.checks[""]
}

// below tells whether a file is one of some paths, or lies in a folder that is.
func below(file string, paths ...string) bool {
	return slices.ContainsFunc(paths, func(at string) bool {
		at = path.Clean(at)
		return at == "." || file == at || strings.HasPrefix(file, at+"/")
	})
}

// ignored tells whether buf is told to ignore a file, or a folder that it lies in.
func (d disk) ignored(file string) bool { return below(file, d.checked(file).Ignore...) }

// ignoresOnly tells whether something is ignored for some rules alone.
func (d disk) ignoresOnly() bool {
	for _, check := range d.checks {
		if len(check.IgnoreOnly) > 0 {
			return true
		}
	}
	return false
}

// A place is where an element stands: a file, from the root, and a package.
type place struct{ file, pkg string }

// passes says why buf passes over a place when it looks for what a rule finds; empty where it does not. categories are
// the rules of buf by category.
func (d disk) passes(at place, rule string, categories map[string][]string) string {
	check := d.checked(at.file)
	if below(at.file, check.Ignore...) {
		return "buf.yaml ignores " + at.file
	}
	for name, paths := range check.IgnoreOnly {
		if below(at.file, paths...) && (equivalent(name) == rule || slices.Contains(categories[name], rule)) {
			return fmt.Sprintf("buf.yaml ignores %s for %s", at.file, name)
		}
	}
	if check.IgnoreUnstable && unstable.MatchString(at.pkg) {
		return "buf.yaml ignores unstable packages such as " + at.pkg
	}
	return ""
}

// unstable matches packages that promise nothing yet, as buf knows them: acme.v1alpha, acme.v1beta2, acme.v1p1beta1,
// acme.v1test, acme.v1testing.
var unstable = regexp.MustCompile(`\.v[1-9][0-9]*((p[1-9][0-9]*)?(alpha|beta)([1-9][0-9]*)?|test.*)$`)

// ModulePath returns where a file of a buf module lies in the workspace at dir, by the path that imports say; a new file
// belongs to the first module.
func ModulePath(dir, file string) string {
	return newDisk(dir).path(file)
}

// Ignored tells whether buf.yaml of the workspace at dir has breaking changes of a file ignored, by its path from the
// root.
func Ignored(dir, path string) bool {
	return newDisk(dir).ignored(path)
}
