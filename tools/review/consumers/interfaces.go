package consumers

import (
	"go/ast"
	"go/token"
	"go/types"
)

// What a message becomes as an interface is read through the methods that the interface asks for: by code that never
// names the message. So the place where it becomes one is a use of the fields behind those methods. Interfaces that ask
// for no getter, as proto.Message, error and any, are none.

// handed notes a value of one type that becomes another: in an assignment, a call, a return, a literal.
func (s *search) handed(from, to types.Type, pos token.Pos, stack []ast.Node) {
	asked := asks(to)
	if asked == nil || from == nil || types.Identical(from, to) {
		return
	}
	for n := range asked.NumMethods() {
		method := asked.Method(n)
		if !method.Exported() || method.Pkg() != nil && s.generated[method.Pkg().Path()] {
			continue // who calls a method of generated code names it
		}
		if object, _, _ := types.LookupFieldOrMethod(from, true, nil, method.Name()); object != nil {
			if found, ok := s.member(object); ok {
				s.note(found, pos, false, stack, ThroughInterface)
			}
			continue
		}
		if of := named(from); of != nil && of.Obj().Pkg() != nil {
			s.note(symbol{of.Obj().Pkg().Path(), of.Obj().Name(), method.Name()}, pos, true, stack, ThroughInterface)
		}
	}
}

// asks returns the interface that a type is, or that a type parameter is bound by, if it has methods.
func asks(to types.Type) *types.Interface {
	if to == nil {
		return nil
	}
	asked, ok := to.Underlying().(*types.Interface)
	if !ok || asked.NumMethods() == 0 {
		return nil
	}
	return asked
}

// all notes values that become what a tuple says: the arguments of a call, what a function returns.
func (s *search) all(values []ast.Expr, to func(n int) types.Type, stack []ast.Node) {
	if len(values) == 1 {
		if several, ok := s.pkg.TypesInfo.TypeOf(values[0]).(*types.Tuple); ok {
			for n := range several.Len() {
				s.handed(several.At(n).Type(), to(n), values[0].Pos(), stack)
			}
			return
		}
	}
	for n, value := range values {
		s.handed(s.pkg.TypesInfo.TypeOf(value), to(n), value.Pos(), stack)
	}
}

// at returns the type of a place in a tuple; nil where it has none.
func at(tuple *types.Tuple, variadic bool) func(n int) types.Type {
	return func(n int) types.Type {
		last := tuple.Len() - 1
		if variadic && n >= last {
			if list, ok := tuple.At(last).Type().(*types.Slice); ok {
				return list.Elem()
			}
		}
		if n > last {
			return nil
		}
		return tuple.At(n).Type()
	}
}

// becomes notes what becomes an interface at a node, the end of a stack.
func (s *search) becomes(node ast.Node, stack []ast.Node) {
	typeOf := s.pkg.TypesInfo.TypeOf
	switch node := node.(type) {
	case *ast.CallExpr:
		s.called(node, stack)
	case *ast.AssignStmt:
		s.all(node.Rhs, func(n int) types.Type {
			if n >= len(node.Lhs) {
				return nil
			}
			return typeOf(node.Lhs[n])
		}, stack)
	case *ast.ValueSpec:
		if node.Type != nil {
			s.all(node.Values, func(int) types.Type { return typeOf(node.Type) }, stack)
		}
	case *ast.ReturnStmt:
		if results := s.results(stack); results != nil {
			s.all(node.Results, at(results, false), stack)
		}
	case *ast.SendStmt:
		if to := typeOf(node.Chan); to != nil {
			if channel, ok := to.Underlying().(*types.Chan); ok {
				s.handed(typeOf(node.Value), channel.Elem(), node.Value.Pos(), stack)
			}
		}
	case *ast.CompositeLit:
		s.composed(node, stack)
	case *ast.RangeStmt:
		if node.Tok == token.ASSIGN {
			s.ranged(node, stack)
		}
	case *ast.TypeAssertExpr:
		if node.Type != nil {
			s.asserted(typeOf(node.Type), node.Type.Pos())
		}
	case *ast.TypeSwitchStmt:
		for _, clause := range node.Body.List {
			if clause, ok := clause.(*ast.CaseClause); ok {
				for _, is := range clause.List {
					s.asserted(typeOf(is), is.Pos())
				}
			}
		}
	case *ast.Ident:
		if made, ok := s.pkg.TypesInfo.Instances[node]; ok {
			s.instantiated(node, made, stack)
		}
	}
}

// called notes the arguments of a call, and of a conversion.
func (s *search) called(node *ast.CallExpr, stack []ast.Node) {
	is, ok := s.pkg.TypesInfo.Types[node.Fun]
	switch {
	case !ok || is.Type == nil:
	case is.IsType():
		s.all(node.Args, func(int) types.Type { return is.Type }, stack)
	case is.IsBuiltin():
		if name, ok := ast.Unparen(node.Fun).(*ast.Ident); ok && name.Name == "append" && len(node.Args) > 1 && !node.Ellipsis.IsValid() {
			if list, ok := s.pkg.TypesInfo.TypeOf(node).Underlying().(*types.Slice); ok {
				s.all(node.Args[1:], func(int) types.Type { return list.Elem() }, stack)
			}
		}
	default:
		if of, ok := is.Type.Underlying().(*types.Signature); ok {
			s.all(node.Args, at(of.Params(), of.Variadic() && !node.Ellipsis.IsValid()), stack)
		}
	}
}

// results returns what the innermost function around the end of a stack returns.
func (s *search) results(stack []ast.Node) *types.Tuple {
	for n := len(stack) - 1; n >= 0; n-- {
		var of types.Type
		switch node := stack[n].(type) {
		case *ast.FuncLit:
			of = s.pkg.TypesInfo.TypeOf(node)
		case *ast.FuncDecl:
			of = s.pkg.TypesInfo.TypeOf(node.Name)
		default:
			continue
		}
		if is, ok := of.(*types.Signature); ok {
			return is.Results()
		}
		return nil
	}
	return nil
}

// composed notes the elements of a composite literal.
func (s *search) composed(node *ast.CompositeLit, stack []ast.Node) {
	of := s.pkg.TypesInfo.TypeOf(node)
	if of == nil {
		return
	}
	if pointer, ok := of.Underlying().(*types.Pointer); ok { // of a literal inside another one
		of = pointer.Elem()
	}
	var key, element types.Type
	is, structure := of.Underlying().(*types.Struct)
	switch under := of.Underlying().(type) {
	case *types.Slice:
		element = under.Elem()
	case *types.Array:
		element = under.Elem()
	case *types.Map:
		key, element = under.Key(), under.Elem()
	}
	for n, value := range node.Elts {
		to := element
		pair, paired := value.(*ast.KeyValueExpr)
		switch {
		case structure && paired:
			if name, ok := pair.Key.(*ast.Ident); ok {
				to = s.pkg.TypesInfo.TypeOf(name)
			}
		case structure && n < is.NumFields():
			to = is.Field(n).Type()
		case paired:
			s.handed(s.pkg.TypesInfo.TypeOf(pair.Key), key, pair.Key.Pos(), stack)
		}
		if paired {
			value = pair.Value
		}
		s.handed(s.pkg.TypesInfo.TypeOf(value), to, value.Pos(), stack)
	}
}

// ranged notes what a loop assigns to variables that were there before.
func (s *search) ranged(node *ast.RangeStmt, stack []ast.Node) {
	over := s.pkg.TypesInfo.TypeOf(node.X)
	if over == nil {
		return
	}
	var key, value types.Type
	switch under := over.Underlying().(type) {
	case *types.Slice:
		value = under.Elem()
	case *types.Array:
		value = under.Elem()
	case *types.Map:
		key, value = under.Key(), under.Elem()
	case *types.Chan:
		key = under.Elem()
	}
	for _, pair := range []struct {
		to   ast.Expr
		from types.Type
	}{{node.Key, key}, {node.Value, value}} {
		if pair.to != nil {
			s.handed(pair.from, s.pkg.TypesInfo.TypeOf(pair.to), pair.to.Pos(), stack)
		}
	}
}

// instantiated notes the arguments of type parameters.
func (s *search) instantiated(node *ast.Ident, made types.Instance, stack []ast.Node) {
	var params *types.TypeParamList
	switch object := s.pkg.TypesInfo.Uses[node].(type) {
	case *types.Func:
		params = object.Signature().TypeParams()
	case *types.TypeName:
		if of, ok := object.Type().(interface{ TypeParams() *types.TypeParamList }); ok {
			params = of.TypeParams()
		}
	}
	for n := range params.Len() {
		if n < made.TypeArgs.Len() {
			s.handed(made.TypeArgs.At(n), params.At(n).Constraint(), node.Pos(), stack)
		}
	}
}

// asserted notes an interface that code asks of a value of which only the running program knows what it is: every
// message that has its getters may be meant.
func (s *search) asserted(to types.Type, pos token.Pos) {
	asked := asks(to)
	if asked == nil {
		return
	}
	var getters []string
	for n := range asked.NumMethods() {
		method := asked.Method(n)
		switch method.Name() {
		case "ProtoReflect", "ProtoMessage", "Reset", "String", "Descriptor": // of every message
		default:
			if of := method.Signature(); of.Params().Len() > 0 || of.Results().Len() != 1 {
				return // no message has it
			}
			getters = append(getters, method.Name())
		}
	}
	if len(getters) == 0 {
		return
	}
	for _, n := range s.names {
	messages:
		for _, first := range n.members()[getters[0]] {
			for _, getter := range getters {
				if _, has := n.targets[symbol{first.pkg, first.name, getter}]; !has {
					continue messages
				}
			}
			for _, getter := range getters {
				s.add(target{n.targets[symbol{first.pkg, first.name, getter}].element, Perhaps}, pos, false, nil)
			}
		}
	}
}
