package consumers

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/tools/go/packages"
)

// check loads and type-checks the packages that patterns name, with those that their tests make.
//
// Code that lies in the tree is read from its source, declarations alone where it is only imported or was generated; code
// of others is read as the compiler left it in the build cache. packages.Load by itself has the compiler build the tree
// too, which for a tree that it has not seen in this folder takes twenty times as long as all the rest.
func check(config *packages.Config, patterns ...string) (*checker, []*packages.Package, error) {
	config.Mode = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps | packages.NeedModule
	roots, err := packages.Load(config, patterns...)
	if err != nil {
		return nil, nil, err
	}
	c := newChecker()
	for _, pkg := range roots {
		c.sources[pkg] = &source{root: true}
	}
	packages.Visit(roots, nil, func(pkg *packages.Package) { // what it imports first
		if pkg.ID == pkg.PkgPath { // else it was made for a test
			c.byPath[pkg.PkgPath] = pkg
		}
		above := func(imported *packages.Package) bool { return c.sources[imported] != nil }
		if c.sources[pkg] == nil && (here(pkg) || slices.ContainsFunc(sortedImports(pkg), above)) {
			c.sources[pkg] = &source{}
		}
	})
	if err := c.read(*config); err != nil {
		return nil, nil, err
	}
	for _, s := range c.sources {
		s.done = make(chan struct{})
	}
	var group sync.WaitGroup
	for pkg, s := range c.sources {
		group.Go(func() {
			defer close(s.done)
			for _, imported := range pkg.Imports {
				if dep := c.sources[imported]; dep != nil {
					<-dep.done
				}
			}
			c.bound <- struct{}{}
			defer func() { <-c.bound }()
			c.check(pkg, s.root)
		})
	}
	group.Wait()
	return c, roots, nil
}

// A checker type-checks one set of packages.
type checker struct {
	fset    *token.FileSet
	sources map[*packages.Package]*source // those that are read from their source
	others  map[string]*types.Package     // all others, by import path
	byPath  map[string]*packages.Package  // all that were loaded, by import path
	bound   chan struct{}                 // so many at once

	mu    sync.Mutex
	files map[string]*file // a package and the one that its tests make share files
}

func newChecker() *checker {
	return &checker{fset: token.NewFileSet(), sources: map[*packages.Package]*source{}, byPath: map[string]*packages.Package{}, files: map[string]*file{},
		bound: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// A source is the state of one package that is read from its source.
type source struct {
	root bool // it was asked for, and not only imported
	done chan struct{}
}

// A file is one that is parsed once.
type file struct {
	once   sync.Once
	syntax *ast.File
	err    error
}

// here tells whether a package lies in the tree, or in a folder that stands for a module.
func here(pkg *packages.Package) bool {
	m := pkg.Module
	return m != nil && (m.Main || m.Replace != nil && m.Replace.Version == "")
}

func sortedImports(pkg *packages.Package) []*packages.Package {
	var list []*packages.Package
	for _, path := range sortedKeys(pkg.Imports) {
		list = append(list, pkg.Imports[path])
	}
	return list
}

// read reads the packages of others that those of the tree import.
func (c *checker) read(config packages.Config) error {
	wanted := map[string]bool{}
	for pkg := range c.sources {
		for _, imported := range pkg.Imports {
			if c.sources[imported] == nil && imported.PkgPath != "unsafe" {
				wanted[imported.PkgPath] = true
			}
		}
	}
	c.others = map[string]*types.Package{}
	if len(wanted) == 0 {
		return nil
	}
	config.Mode, config.Tests = packages.NeedName|packages.NeedExportFile, false
	found, err := packages.Load(&config, sortedKeys(wanted)...)
	if err != nil {
		return err
	}
	exports := map[string]string{}
	for _, pkg := range found {
		if pkg.ExportFile != "" { // else who imports it is told so
			exports[pkg.PkgPath] = pkg.ExportFile
		}
	}
	read := importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for path := range exports {
		if c.others[path], err = read.Import(path); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	return nil
}

// check type-checks one package, of which all imports are done.
func (c *checker) check(pkg *packages.Package, root bool) {
	if root && strings.HasSuffix(pkg.ID, ".test") {
		return // the main package of tests, which nobody wrote
	}
	pkg.Fset = c.fset
	for _, name := range pkg.CompiledGoFiles {
		syntax, err := c.parse(name)
		if syntax != nil {
			pkg.Syntax = append(pkg.Syntax, syntax)
		}
		pkg.Errors = append(pkg.Errors, parseErrors(err)...)
	}
	bodies := root && slices.ContainsFunc(pkg.Syntax, func(f *ast.File) bool { return len(generatedFrom([]*ast.File{f})) == 0 })
	config := &types.Config{
		Importer: importFunc(func(path string) (*types.Package, error) { return c.imported(pkg, path) }),
		Error: func(err error) {
			if typed, ok := errors.AsType[types.Error](err); ok && root {
				pkg.TypeErrors = append(pkg.TypeErrors, typed)
				pkg.Errors = append(pkg.Errors, packages.Error{Pos: c.fset.Position(typed.Pos).String(), Msg: typed.Msg, Kind: packages.TypeError})
			}
		},
		IgnoreFuncBodies: !bodies,
		Sizes:            types.SizesFor(build.Default.Compiler, build.Default.GOARCH),
	}
	if pkg.Module != nil && pkg.Module.GoVersion != "" {
		config.GoVersion = "go" + pkg.Module.GoVersion
	}
	if bodies {
		pkg.TypesInfo = &types.Info{
			Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
			Selections: map[*ast.SelectorExpr]*types.Selection{}, Instances: map[*ast.Ident]types.Instance{},
		}
	}
	pkg.Types = types.NewPackage(pkg.PkgPath, pkg.Name)
	_ = types.NewChecker(config, c.fset, pkg.Types, pkg.TypesInfo).Files(pkg.Syntax) // every error was reported
}

// parse parses a file, or returns what came of it before.
func (c *checker) parse(name string) (*ast.File, error) {
	c.mu.Lock()
	f := c.files[name]
	if f == nil {
		f = new(file)
		c.files[name] = f
	}
	c.mu.Unlock()
	f.once.Do(func() {
		f.syntax, f.err = parser.ParseFile(c.fset, name, nil, parser.AllErrors|parser.ParseComments|parser.SkipObjectResolution)
	})
	return f.syntax, f.err
}

func parseErrors(err error) []packages.Error {
	if err == nil {
		return nil
	}
	list, ok := errors.AsType[scanner.ErrorList](err)
	if !ok {
		return []packages.Error{{Pos: "-", Msg: err.Error(), Kind: packages.ParseError}}
	}
	var found []packages.Error
	for _, e := range list {
		found = append(found, packages.Error{Pos: e.Pos.String(), Msg: e.Msg, Kind: packages.ParseError})
	}
	return found
}

// importFunc is a types.Importer.
type importFunc func(path string) (*types.Package, error)

// Import returns a package.
func (i importFunc) Import(path string) (*types.Package, error) { return i(path) }

// imported returns what an import in a package means.
func (c *checker) imported(pkg *packages.Package, path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	imported := pkg.Imports[path]
	if imported == nil {
		return nil, fmt.Errorf("no package %s", path)
	}
	if c.sources[imported] != nil {
		if imported.Types != nil {
			return imported.Types, nil
		}
	} else if found := c.others[imported.PkgPath]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("package %s could not be read", path)
}
