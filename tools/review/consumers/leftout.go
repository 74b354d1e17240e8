package consumers

import (
	"go/ast"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// leftOut looks through the Go files that are not built here and may use the contract: they, or others of their folder,
// import generated code. Each is type-checked beside what is built of its folder, as far as that goes; where the type
// behind a name is not known, the name says what may be used.
func (s *search) leftOut(on *tree, loads []*load) {
	built := map[string]bool{}
	beside := map[string][]*packages.Package{} // by folder
	checkers := map[*packages.Package]*checker{}
	for _, l := range loads {
		for _, pkg := range l.roots {
			checkers[pkg] = l.checker
			for _, name := range slices.Concat(pkg.GoFiles, pkg.CompiledGoFiles) {
				built[name] = true
			}
			if len(pkg.GoFiles) > 0 {
				folder := filepath.Dir(pkg.GoFiles[0])
				beside[folder] = append(beside[folder], pkg)
			}
		}
	}
	nothing := newChecker() // for modules that could not be loaded
	for _, name := range on.files {
		folder := filepath.Dir(name)
		l, of := owner(loads, folder)
		if built[name] || l == nil {
			continue
		}
		c := l.checker
		if c == nil {
			c = nothing
		}
		syntax, err := c.parse(name)
		if syntax == nil || len(generatedFrom([]*ast.File{syntax})) > 0 {
			if syntax == nil {
				s.index.Problems = append(s.index.Problems, Problem{s.relative(name), firstLine(s.relative(err.Error()))})
			}
			continue
		}
		pkg := &packages.Package{ID: name, Name: syntax.Name.Name, PkgPath: importPath(of, folder), Module: &packages.Module{Path: of.Path, Dir: of.Dir}, Imports: maps.Clone(c.byPath)}
		files := []*ast.File{syntax}
		pkg.CompiledGoFiles = []string{name}
		for _, other := range beside[folder] {
			if other.Name != pkg.Name || checkers[other] != c {
				continue
			}
			if other.Module != nil {
				pkg.Module = other.Module
			}
			for _, file := range other.Syntax {
				if at := c.fset.Position(file.FileStart).Filename; !slices.Contains(pkg.CompiledGoFiles, at) {
					pkg.CompiledGoFiles = append(pkg.CompiledGoFiles, at)
					files = append(files, file)
				}
			}
		}
		if imported := s.imports(files); len(imported) > 0 {
			s.index.LeftOut = append(s.index.LeftOut, filepath.ToSlash(s.relative(name)))
			c.check(pkg, true)
			s.begin(pkg)
			s.outside = imported
			s.file(syntax, true)
			s.servers(syntax)
		}
	}
	s.outside = nil
}

// owner returns the module that a folder belongs to.
func owner(loads []*load, folder string) (*load, module) {
	var found *load
	var of module
	for _, l := range loads {
		for _, m := range l.modules {
			if (folder == m.Dir || strings.HasPrefix(folder, m.Dir+string(filepath.Separator))) && len(m.Dir) > len(of.Dir) {
				found, of = l, m
			}
		}
	}
	return found, of
}

// importPath is that of a folder of a module.
func importPath(of module, folder string) string {
	below, err := filepath.Rel(of.Dir, folder)
	if err != nil || below == "." {
		return of.Path
	}
	return of.Path + "/" + filepath.ToSlash(below)
}

// imports returns the packages of generated code that files import.
func (s *search) imports(files []*ast.File) map[string]bool {
	imported := map[string]bool{}
	for _, file := range files {
		for _, spec := range file.Imports {
			if path := strings.Trim(spec.Path.Value, "`\""); s.generated[path] {
				imported[path] = true
			}
		}
	}
	return imported
}

// unresolved notes a name of which it is not known what it is a member of, in a file that is not built here.
func (s *search) unresolved(name string, pos token.Pos) {
	if s.outside == nil {
		return
	}
	for _, n := range s.names {
		for _, at := range n.members()[name] {
			if s.outside[at.pkg] {
				s.add(target{n.targets[at].element, Perhaps}, pos, false, nil)
			}
		}
	}
}
