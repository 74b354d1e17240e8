package consumers

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A search looks through packages for uses.
type search struct {
	index     *Index
	dir       string
	names     []*names
	generated map[string]bool // import paths
	seen      map[string]bool // files: a package and the one that its tests make share them

	// What follows is of the package at hand.
	pkg     *packages.Package
	errors  []types.Error
	members map[types.Object]symbol
	masks   bool // the package imports field masks
	// outside are the packages of generated code that a file which is not built here may use; nil for one that is.
	outside map[string]bool
}

// problems notes what keeps a package from being analysed in full.
func (s *search) problems(pkg *packages.Package) {
	where := strings.TrimSuffix(pkg.PkgPath, "_test")
	if len(pkg.Errors) > 0 && !strings.HasSuffix(pkg.PkgPath, ".test") {
		s.index.Problems = append(s.index.Problems, Problem{where, "does not compile, and is analysed as far as it goes: " + s.relative(says(pkg.Errors))})
	}
}

// says returns the first line of errors that names a file, or else the first line.
func says(errors []packages.Error) string {
	for _, e := range errors {
		for line := range strings.Lines(e.Error()) {
			if strings.Contains(line, ".go:") {
				return firstLine(line)
			}
		}
	}
	return firstLine(errors[0].Error())
}

// relative takes the root out of a text.
func (s *search) relative(text string) string {
	return strings.ReplaceAll(text, s.dir+string(filepath.Separator), "")
}

// visit finds the uses in one package.
func (s *search) visit(pkg *packages.Package) {
	if pkg.Types == nil || pkg.TypesInfo == nil || strings.HasSuffix(pkg.PkgPath, ".test") {
		return
	}
	s.begin(pkg)
	uses := len(s.imports(pkg.Syntax)) > 0
	for path := range pkg.Imports {
		uses = uses || s.generated[path]
	}
	for _, file := range pkg.Syntax {
		name := pkg.Fset.Position(file.FileStart).Filename
		if s.seen[name] {
			continue
		}
		s.seen[name] = true
		s.file(file, uses)
	}
	if uses {
		s.servers(pkg.Syntax...)
	}
}

// begin turns to a package.
func (s *search) begin(pkg *packages.Package) {
	s.pkg, s.errors, s.members, s.masks = pkg, pkg.TypeErrors, map[types.Object]symbol{}, false
	for _, file := range pkg.Syntax {
		for _, spec := range file.Imports {
			s.masks = s.masks || spec.Path.Value == `"google.golang.org/protobuf/types/known/fieldmaskpb"`
		}
	}
}

// file walks one file. Without an import of generated code only what came through other packages can be used.
func (s *search) file(file *ast.File, imports bool) {
	var stack []ast.Node
	ast.Inspect(file, func(node ast.Node) bool {
		if node == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, node)
		s.becomes(node, stack)
		switch node := node.(type) {
		case *ast.SelectorExpr:
			s.selector(node, stack)
		case *ast.KeyValueExpr:
			s.key(node, stack)
		case *ast.SwitchStmt:
			s.switches(node)
		case *ast.CallExpr:
			s.reflects(node)
		case *ast.BasicLit:
			if imports && s.masks {
				s.text(node)
			}
		}
		return true
	})
}

// selector notes x.Name: a name of a generated package, or a member of one of its types.
func (s *search) selector(node *ast.SelectorExpr, stack []ast.Node) {
	if ident, ok := node.X.(*ast.Ident); ok {
		if imported, ok := s.pkg.TypesInfo.Uses[ident].(*types.PkgName); ok {
			missing, kind := s.pkg.TypesInfo.Uses[node.Sel] == nil, Kind("")
			if s.outside != nil && !imported.Imported().Complete() {
				missing, kind = false, Perhaps // the package could not be read from where the file is
			}
			s.note(symbol{imported.Imported().Path(), node.Sel.Name, ""}, node.Sel.Pos(), missing, stack, kind)
			return
		}
	}
	if selection := s.pkg.TypesInfo.Selections[node]; selection != nil {
		if found, ok := s.member(selection.Obj()); ok {
			s.note(found, node.Sel.Pos(), false, stack, access(node, stack))
		}
		return
	}
	// The member does not exist. The type of what it was looked up in may still be known.
	of := s.pkg.TypesInfo.TypeOf(node.X)
	if unknown(of) {
		s.unresolved(node.Sel.Name, node.Sel.Pos())
	} else if of := named(of); of != nil && of.Obj().Pkg() != nil {
		s.note(symbol{of.Obj().Pkg().Path(), of.Obj().Name(), node.Sel.Name}, node.Sel.Pos(), true, stack, access(node, stack))
	}
}

// key notes Name in a composite literal T{Name: value}.
func (s *search) key(node *ast.KeyValueExpr, stack []ast.Node) {
	ident, ok := node.Key.(*ast.Ident)
	if !ok || len(stack) < 2 {
		return
	}
	literal, ok := stack[len(stack)-2].(*ast.CompositeLit)
	if !ok {
		return
	}
	typ := s.pkg.TypesInfo.TypeOf(literal)
	if unknown(typ) {
		s.unresolved(ident.Name, ident.Pos())
		return
	}
	of := named(typ)
	if of == nil || of.Obj().Pkg() == nil {
		return
	}
	if _, ok := of.Underlying().(*types.Struct); ok {
		s.note(symbol{of.Obj().Pkg().Path(), of.Obj().Name(), ident.Name}, ident.Pos(), s.pkg.TypesInfo.Uses[ident] == nil, stack, Literal)
	}
}

// switches notes a switch over an enum which says nothing of values that it does not list.
func (s *search) switches(node *ast.SwitchStmt) {
	if node.Tag == nil {
		return
	}
	typ := s.pkg.TypesInfo.TypeOf(node.Tag)
	for _, clause := range node.Body.List { // what is switched over is of the type of its cases
		if clause, ok := clause.(*ast.CaseClause); ok && unknown(typ) && len(clause.List) > 0 {
			typ = s.pkg.TypesInfo.TypeOf(clause.List[0])
		}
	}
	of := named(typ)
	if of == nil || of.Obj().Pkg() == nil || !s.generated[of.Obj().Pkg().Path()] {
		return
	}
	for _, clause := range node.Body.List {
		if clause, ok := clause.(*ast.CaseClause); ok && clause.List == nil {
			return
		}
	}
	s.note(symbol{of.Obj().Pkg().Path(), of.Obj().Name(), ""}, node.Pos(), false, nil, Undefaulted)
}

// reflects notes a message that is handed to code which reads all of it by reflection: an encoding, or its own
// ProtoReflect.
func (s *search) reflects(node *ast.CallExpr) {
	selector, ok := node.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	whole := func(e ast.Expr) {
		if of := named(s.pkg.TypesInfo.TypeOf(e)); of != nil && of.Obj().Pkg() != nil {
			s.note(symbol{of.Obj().Pkg().Path(), of.Obj().Name(), ""}, e.Pos(), false, nil, Dynamic)
		}
	}
	if selector.Sel.Name == "ProtoReflect" {
		whole(selector.X)
		return
	}
	callee := s.pkg.TypesInfo.Uses[selector.Sel]
	if callee == nil || callee.Pkg() == nil || !strings.HasPrefix(callee.Pkg().Path(), "google.golang.org/protobuf/encoding/") {
		return
	}
	for _, argument := range node.Args {
		whole(argument)
	}
}

// text notes the name of a field in a string of a package that handles field masks.
func (s *search) text(node *ast.BasicLit) {
	value := s.pkg.TypesInfo.Types[node].Value
	if value == nil || value.Kind() != constant.String {
		return
	}
	for _, n := range s.names {
		for _, field := range n.fields[constant.StringVal(value)] {
			s.add(target{field, NamedInText}, node.Pos(), false, nil)
		}
	}
}

// servers notes the methods in files of the package by which types serve: a type that embeds what is generated for
// servers.
func (s *search) servers(files ...*ast.File) {
	written := func(pos token.Pos) bool {
		return slices.ContainsFunc(files, func(f *ast.File) bool { return f.FileStart <= pos && pos <= f.FileEnd })
	}
	scope := s.pkg.Types.Scope()
	for _, name := range scope.Names() {
		object, ok := scope.Lookup(name).(*types.TypeName)
		if !ok || object.IsAlias() {
			continue
		}
		of, ok := object.Type().(*types.Named)
		if !ok {
			continue
		}
		fields, ok := of.Underlying().(*types.Struct)
		if !ok {
			continue
		}
		for n := range fields.NumFields() {
			embedded := named(fields.Field(n).Type())
			if !fields.Field(n).Embedded() || embedded == nil || embedded.Obj().Pkg() == nil {
				continue
			}
			at := symbol{embedded.Obj().Pkg().Path(), embedded.Obj().Name(), ""}
			for _, names := range s.names {
				service, ok := names.servers[at]
				if !ok {
					continue
				}
				for n := range of.NumMethods() {
					method := of.Method(n)
					if element, ok := names.methods[service][method.Name()]; ok && written(method.Pos()) {
						s.add(target{element, Serves}, method.Pos(), false, nil)
					}
				}
			}
		}
	}
}

// member returns the type and the name of a field or a method of a generated type.
func (s *search) member(object types.Object) (symbol, bool) {
	if object.Pkg() == nil || !s.generated[object.Pkg().Path()] {
		return symbol{}, false
	}
	if found, ok := s.members[object]; ok {
		return found, true
	}
	scope := object.Pkg().Scope()
	for _, name := range scope.Names() {
		of, ok := scope.Lookup(name).Type().(*types.Named)
		if !ok || of.Obj().Name() != name {
			continue
		}
		at := func(member types.Object) {
			s.members[member] = symbol{object.Pkg().Path(), name, member.Name()}
		}
		for n := range of.NumMethods() {
			at(of.Method(n))
		}
		switch under := of.Underlying().(type) {
		case *types.Struct:
			for n := range under.NumFields() {
				if !under.Field(n).Embedded() {
					at(under.Field(n))
				}
			}
		case *types.Interface:
			for n := range under.NumExplicitMethods() {
				at(under.ExplicitMethod(n))
			}
		}
	}
	found, ok := s.members[object]
	return found, ok
}

// note adds the use of a symbol, if the contract has it. kind is empty where the symbol says it.
func (s *search) note(at symbol, pos token.Pos, missing bool, stack []ast.Node, kind Kind) {
	if !s.generated[at.pkg] {
		return
	}
	found := map[target]bool{}
	for _, n := range s.names {
		t, ok := n.targets[at]
		if !ok {
			continue
		}
		switch {
		case t.kind == OneofCase && !cased(stack):
			t.kind = Literal
		case t.kind == Reads && kind != "", kind == Undefaulted, kind == Dynamic, kind == Perhaps:
			t.kind = kind
		}
		if !found[t] {
			found[t] = true
			s.add(t, pos, missing, stack)
		}
	}
}

func (s *search) add(t target, pos token.Pos, missing bool, stack []ast.Node) {
	at := s.pkg.Fset.Position(pos)
	path, err := filepath.Rel(s.dir, at.Filename)
	if err != nil || strings.HasPrefix(path, "..") {
		return // generated by the go command, as the main of a test
	}
	use := Use{
		Element: t.element, Kind: t.kind, Path: filepath.ToSlash(path), Line: at.Line, Column: at.Column, Package: strings.TrimSuffix(s.pkg.PkgPath, "_test"),
		Test: strings.HasSuffix(path, "_test.go"), Missing: missing, Error: s.errorIn(statement(stack)), LeftOut: s.outside != nil,
	}
	if s.pkg.Module != nil {
		use.Module = s.pkg.Module.Path
	}
	s.index.Uses = append(s.index.Uses, use)
}

// errorIn returns the first error of the compiler inside a node.
func (s *search) errorIn(node ast.Node) string {
	if node == nil {
		return ""
	}
	for _, e := range s.errors {
		if !e.Soft && node.Pos() <= e.Pos && e.Pos <= node.End() {
			return s.relative(e.Msg)
		}
	}
	return ""
}

// statement returns the innermost statement or declaration around the end of a stack; of a compound statement only what
// stands before its body counts, which the innermost statement is a part of.
func statement(stack []ast.Node) ast.Node {
	for n := len(stack) - 1; n >= 0; n-- {
		switch node := stack[n].(type) {
		case *ast.BlockStmt, *ast.FuncLit:
			return nil
		case *ast.IfStmt:
			return node.Cond
		case *ast.ForStmt:
			return node.Cond
		case *ast.RangeStmt:
			return node.X
		case *ast.CaseClause:
			return stack[n+1]
		case *ast.SwitchStmt:
			return node.Tag
		case ast.Stmt, *ast.ValueSpec, *ast.Field:
			return node
		}
	}
	return nil
}

// access tells reading from writing.
func access(node *ast.SelectorExpr, stack []ast.Node) Kind {
	if len(stack) >= 2 {
		switch outer := stack[len(stack)-2].(type) {
		case *ast.AssignStmt:
			for _, left := range outer.Lhs {
				if left == node {
					return Writes
				}
			}
		case *ast.IncDecStmt:
			return Writes
		}
	}
	if strings.HasPrefix(node.Sel.Name, "Set") || strings.HasPrefix(node.Sel.Name, "Clear") {
		return ""
	}
	return Reads
}

// cased tells whether the end of a stack is the type of a case in a type switch.
func cased(stack []ast.Node) bool {
	for n := len(stack) - 1; n >= 0; n-- {
		switch stack[n].(type) {
		case *ast.CaseClause, *ast.TypeAssertExpr:
			return true
		case *ast.CompositeLit, ast.Stmt:
			return false
		}
	}
	return false
}

// unknown tells whether nothing is known of a type, for an error somewhere else.
func unknown(t types.Type) bool {
	return t == nil || t == types.Typ[types.Invalid]
}

// named returns the type that an expression's type names, through a pointer.
func named(t types.Type) *types.Named {
	if t == nil {
		return nil
	}
	if pointer, ok := types.Unalias(t).(*types.Pointer); ok {
		t = pointer.Elem()
	}
	of, _ := types.Unalias(t).(*types.Named)
	return of
}
