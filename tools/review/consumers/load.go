package consumers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// A module is one Go module of a tree.
type module struct {
	Path, Dir string
	work      string // the go.work that it is part of, with all others of which it is loaded; empty for none
}

// Find analyses all Go modules of the tree at dir: those of every go.work in it, and any other. images are the
// contracts whose elements are looked for; an element that only one of them has is found as well.
//
// What is wrong with the tree is a Problem of the index, not an error; an error says that nothing could be analysed.
func Find(ctx context.Context, dir string, images ...*schema.Image) (*Index, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Paths are told apart by their prefix, and the go command prints them without symbolic links.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	index := &Index{Generated: map[string][]string{}, Problems: []Problem{}, Uses: []Use{}}
	on, err := index.look(ctx, dir)
	if err != nil {
		return nil, err
	}
	loads := index.load(ctx, on.modules)
	var loaded []*packages.Package
	for _, l := range loads {
		loaded = append(loaded, l.roots...)
	}
	slices.SortStableFunc(loaded, func(a, b *packages.Package) int { return strings.Compare(a.ID, b.ID) })
	for _, pkg := range loaded {
		if sources := generatedFrom(pkg.Syntax); len(sources) > 0 {
			index.Generated[pkg.PkgPath] = sources
		}
	}
	if err := index.elsewhere(ctx, loaded, images); err != nil {
		return nil, err
	}
	s := &search{index: index, dir: dir, generated: map[string]bool{}, seen: map[string]bool{}}
	for pkg := range index.Generated {
		s.generated[pkg] = true
	}
	for _, image := range images {
		n, err := newNames(image, index.Generated)
		if err != nil {
			return nil, err
		}
		s.names = append(s.names, n)
		for symbol := range n.targets {
			s.generated[symbol.pkg] = true
		}
	}
	for _, pkg := range loaded {
		s.problems(pkg)
		if len(index.Generated[pkg.PkgPath]) == 0 {
			s.visit(pkg)
		}
		index.Packages++
	}
	s.leftOut(on, loads)
	index.sort()
	return index, nil
}

// A tree is what lies in a folder.
type tree struct {
	modules []module
	// files are all Go files in folders that the go command looks into, whether or not it builds them here.
	files []string
}

// look lists what is in the tree.
func (x *Index) look(ctx context.Context, dir string) (*tree, error) {
	found := &tree{}
	var works, mods []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
		switch {
		case d.IsDir() && path != dir && (hidden || name == "vendor" || name == "testdata" || name == "node_modules"):
			return filepath.SkipDir
		case d.IsDir():
		case name == "go.work":
			works = append(works, path)
		case name == "go.mod":
			mods = append(mods, path)
		case strings.HasSuffix(name, ".go") && !hidden:
			found.files = append(found.files, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for Go code: %w", err)
	}
	// A module may be part of several workspaces; the one nearest to the root has it.
	slices.SortStableFunc(works, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	known := map[string]bool{}
	for _, work := range works {
		used, err := uses(ctx, work)
		if err != nil {
			where, _ := filepath.Rel(dir, work)
			x.Problems = append(x.Problems, Problem{filepath.ToSlash(where), firstLine(err.Error())})
		}
		for _, folder := range used {
			if !known[folder] {
				known[folder] = true
				found.modules = append(found.modules, module{modulePath(filepath.Join(folder, "go.mod")), folder, work})
			}
		}
	}
	for _, mod := range mods {
		if folder := filepath.Dir(mod); !known[folder] {
			found.modules = append(found.modules, module{modulePath(mod), folder, ""})
		}
	}
	for _, m := range found.modules {
		x.Modules = append(x.Modules, m.Path)
	}
	if len(found.modules) == 0 {
		x.Problems = append(x.Problems, Problem{".", NoModules})
	}
	return found, nil
}

// uses returns the folders of the modules of a go.work that there are.
func uses(ctx context.Context, work string) ([]string, error) {
	out, err := repo.Output(ctx, filepath.Dir(work), "go", "work", "edit", "-json", work)
	if err != nil {
		return nil, err
	}
	var said struct{ Use []struct{ DiskPath string } }
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		return nil, fmt.Errorf("read the modules of go.work: %w", err)
	}
	var folders []string
	for _, use := range said.Use {
		folder := filepath.FromSlash(use.DiskPath)
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(filepath.Dir(work), folder)
		}
		if _, statErr := os.Stat(filepath.Join(folder, "go.mod")); statErr != nil {
			err = fmt.Errorf("uses %s, which has no go.mod", use.DiskPath)
			continue
		}
		folders = append(folders, folder)
	}
	return folders, err
}

func modulePath(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return filepath.Dir(file)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if path, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "module "); ok {
			return strings.Trim(strings.TrimSpace(path), `"`)
		}
	}
	return filepath.Dir(file)
}

// A load is what was loaded together.
type load struct {
	modules []module
	roots   []*packages.Package
	checker *checker // nil where nothing could be loaded
}

// load type-checks every package of the modules, those of a workspace together.
func (x *Index) load(ctx context.Context, modules []module) []*load {
	var loads []*load
	together := map[string]*load{} // by go.work
	for _, m := range modules {
		if m.work != "" && together[m.work] != nil {
			together[m.work].modules = append(together[m.work].modules, m)
			continue
		}
		l := &load{modules: []module{m}}
		together[m.work] = l
		loads = append(loads, l)
	}
	for _, l := range loads {
		first, err := l.modules[0], error(nil)
		where := first.Path
		if first.work == "" {
			l.checker, l.roots, err = check(config(ctx, first.Dir, "off"), "./...")
		} else {
			var patterns []string
			for _, m := range l.modules {
				patterns = append(patterns, m.Dir+"/...")
			}
			where = "go.work"
			l.checker, l.roots, err = check(config(ctx, filepath.Dir(first.work), first.work), patterns...)
		}
		if err != nil {
			x.Problems = append(x.Problems, Problem{where, firstLine(err.Error())})
		}
	}
	return loads
}

func config(ctx context.Context, dir, work string) *packages.Config {
	env := append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY="+proxy(), "GOWORK="+work)
	return &packages.Config{Context: ctx, Dir: dir, Env: env, Tests: true}
}

// proxy leaves the module proxy as it is set.
func proxy() string {
	if set := os.Getenv("GOPROXY"); set != "" {
		return set
	}
	return "https://proxy.golang.org,direct"
}

// generatedHeader and sourceLine are how generated code says what made it (https://go.dev/s/generatedcode), and from
// what: protoc-gen-go and protoc-gen-go-grpc write `// source: users/v1/user.proto`, connect-go `// Source: …`.
var (
	generatedHeader = regexp.MustCompile(`^// Code generated by protoc-gen-\S+\. DO NOT EDIT\.$`)
	sourceLine      = regexp.MustCompile(`^// (?:- )?[sS]ource: +(\S+\.proto)$`)
)

// generatedFrom returns the .proto files that a package was generated from; none for a package that people write.
func generatedFrom(files []*ast.File) []string {
	var sources []string
	for _, file := range files {
		generated := false
		for _, group := range file.Comments {
			if group.Pos() > file.Package {
				break
			}
			for _, line := range group.List {
				generated = generated || generatedHeader.MatchString(line.Text)
				if found := sourceLine.FindStringSubmatch(line.Text); found != nil && generated {
					sources = append(sources, found[1])
				}
			}
		}
	}
	slices.Sort(sources)
	return slices.Compact(sources)
}

// elsewhere finds generated code that the tree imports and does not hold: in a module of its own repository. Only what
// lies in a folder that is called as that of a .proto file is looked at.
func (x *Index) elsewhere(ctx context.Context, loaded []*packages.Package, images []*schema.Image) error {
	here, wanted := map[string]bool{}, map[string]map[string]bool{} // by folder to load from: import paths
	for _, pkg := range loaded {
		here[pkg.PkgPath] = true
	}
	folders := map[string]bool{}
	for _, image := range images {
		for _, file := range image.Files {
			folders[path.Dir(file.Name)] = true
		}
	}
	for _, pkg := range loaded {
		for imported := range pkg.Imports {
			if here[imported] || pkg.Module == nil || pkg.Module.Dir == "" {
				continue
			}
			for folder := range folders {
				if imported == folder || strings.HasSuffix(imported, "/"+folder) {
					if wanted[pkg.Module.Dir] == nil {
						wanted[pkg.Module.Dir] = map[string]bool{}
					}
					wanted[pkg.Module.Dir][imported] = true
				}
			}
		}
	}
	for _, dir := range sortedKeys(wanted) {
		found, err := packages.Load(&packages.Config{Context: ctx, Mode: packages.NeedName | packages.NeedFiles, Dir: dir}, sortedKeys(wanted[dir])...)
		if err != nil {
			return fmt.Errorf("look at imported code in %s: %w", dir, err)
		}
		for _, pkg := range found {
			var files []*ast.File
			for _, name := range pkg.GoFiles {
				file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
				if err == nil {
					files = append(files, file)
				}
			}
			if sources := generatedFrom(files); len(sources) > 0 {
				x.Generated[pkg.PkgPath] = sources
			}
		}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return line
}
