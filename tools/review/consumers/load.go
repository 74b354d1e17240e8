package consumers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
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
	work      bool // part of a workspace, and loaded together with the others of it
}

// Find analyses all Go modules of the tree at dir: those of its go.work, and any other below dir. images are the
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
	modules, err := index.findModules(ctx, dir)
	if err != nil {
		return nil, err
	}
	loaded := index.load(ctx, dir, modules)
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
	index.sort()
	return index, nil
}

// findModules lists the modules of the tree.
func (x *Index) findModules(ctx context.Context, dir string) ([]module, error) {
	var modules []module
	inWork := map[string]bool{}
	if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
		out, err := repo.Output(ctx, dir, "go", "list", "-m", "-json=Path,Dir,Main")
		if err != nil {
			x.Problems = append(x.Problems, Problem{"go.work", firstLine(err.Error())})
		}
		for d := json.NewDecoder(strings.NewReader(out)); err == nil; {
			var m struct {
				Path, Dir string
				Main      bool
			}
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("read the modules of go.work: %w", err)
			}
			if m.Main && m.Dir != "" {
				inWork[m.Dir] = true
				modules = append(modules, module{m.Path, m.Dir, true})
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != dir && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "vendor" || name == "testdata" || name == "node_modules") {
			return filepath.SkipDir
		}
		if name != "go.mod" || inWork[filepath.Dir(path)] {
			return nil
		}
		modules = append(modules, module{modulePath(path), filepath.Dir(path), false})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for go.mod: %w", err)
	}
	for _, m := range modules {
		x.Modules = append(x.Modules, m.Path)
	}
	if len(modules) == 0 {
		x.Problems = append(x.Problems, Problem{".", "no go.work and no go.mod: no Go consumers were looked for"})
	}
	return modules, nil
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

// load type-checks every package of the modules, those of a workspace together.
func (x *Index) load(ctx context.Context, dir string, modules []module) []*packages.Package {
	var work []string
	var loaded []*packages.Package
	for _, m := range modules {
		if m.work {
			work = append(work, m.Dir+"/...")
			continue
		}
		found, err := check(config(ctx, m.Dir, "off"), "./...")
		if err != nil {
			x.Problems = append(x.Problems, Problem{m.Path, firstLine(err.Error())})
			continue
		}
		loaded = append(loaded, found...)
	}
	if len(work) > 0 {
		found, err := check(config(ctx, dir, ""), work...)
		if err != nil {
			x.Problems = append(x.Problems, Problem{"go.work", firstLine(err.Error())})
		}
		loaded = append(loaded, found...)
	}
	slices.SortStableFunc(loaded, func(a, b *packages.Package) int { return strings.Compare(a.ID, b.ID) })
	return loaded
}

func config(ctx context.Context, dir, work string) *packages.Config {
	env := append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY="+proxy())
	if work != "" {
		env = append(env, "GOWORK="+work)
	}
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
