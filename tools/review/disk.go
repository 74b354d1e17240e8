package review

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A disk knows where the files of the buf modules lie, and what buf.yaml says of them.
type disk struct {
	dir     string
	modules []string // folders from dir, the deepest first
	ignores []string // what breaking ignores, from dir
}

// workspace is what this program reads of buf.yaml; buf checks all of it.
type workspace struct {
	Modules []struct {
		Path     string   `yaml:"path"`
		Excludes []string `yaml:"excludes"`
		Breaking struct {
			Ignore []string `yaml:"ignore"`
		} `yaml:"breaking"`
	} `yaml:"modules"`
	Breaking struct {
		Ignore []string `yaml:"ignore"`
	} `yaml:"breaking"`
}

// newDisk reads buf.yaml as far as it can: buf itself has compiled the workspace before.
func newDisk(dir string) disk {
	d := disk{dir: dir}
	var w workspace
	if data, err := os.ReadFile(filepath.Join(dir, "buf.yaml")); err == nil {
		_ = yaml.NewDecoder(bytes.NewReader(data)).Decode(&w)
	}
	d.ignores = w.Breaking.Ignore
	for _, m := range w.Modules {
		d.modules = append(d.modules, path.Clean(m.Path))
		d.ignores = append(d.ignores, m.Breaking.Ignore...)
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

// ignored tells whether buf is told to ignore a file, or a folder that it lies in.
func (d disk) ignored(file string) bool {
	return slices.ContainsFunc(d.ignores, func(ignore string) bool {
		ignore = path.Clean(ignore)
		return file == ignore || strings.HasPrefix(file, ignore+"/")
	})
}

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
