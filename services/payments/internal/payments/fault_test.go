package payments

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

func TestEveryFaultIsValidAndListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, f := range Faults() {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		listed[f.Reason()] = true
	}
	for _, reason := range declaredReasons(t) {
		if !listed[reason] {
			t.Errorf("Faults does not list %s", reason)
		}
	}
}

// declaredReasons returns the reasons of all faults that the source of this package makes.
func declaredReasons(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "New" && len(call.Args) == 3 {
				reasons = append(reasons, strings.Trim(call.Args[1].(*ast.BasicLit).Value, `"`))
			}
			return true
		})
	}
	if len(reasons) == 0 {
		t.Fatal("no fault was found in the source")
	}
	return reasons
}
