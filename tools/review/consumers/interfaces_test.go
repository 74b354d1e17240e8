package consumers_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review/consumers"
)

const through = `package shop

import (
	"context"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

type emailed interface{ GetEmail() string }

type holder struct{ *usersv1.User }

type box struct {
	name string
	of   emailed
}

type deleter interface {
	DeleteUser(context.Context, *usersv1.DeleteUserRequest, ...GRPC) (*usersv1.DeleteUserResponse, error)
}

func take(emailed)              {}
func takes(string, ...emailed)  {}
func two() (int, *usersv1.User) { return 0, nil }
func both(int, emailed)         {}
func generic[T emailed](T)      {}

type cell[T emailed] struct{ of T }

func Use(u *usersv1.User, h holder, c chan emailed, list []*usersv1.User) emailed {
	var e emailed = u                         // declared
	e = u                                     // assigned
	take(u)                                   // an argument
	takes("", u)                              // a variadic argument
	both(two())                               // one of several results
	_ = emailed(u)                            // converted
	_ = box{of: u}                            // in a struct
	_ = box{"", u}                            // in a struct without names
	_ = []emailed{u}                          // in a list
	_ = map[string]emailed{"": u}             // in a map
	_ = append([]emailed{}, u)                // appended
	c <- u                                    // sent
	generic(u)                                // a type argument
	_ = cell[*usersv1.User]{}                 // a type argument of a type
	take(h)                                   // promoted
	for _, e = range list {                   // in a loop
		_ = e
	}
	_ = func() emailed { return u }           // returned by a literal
	return u                                  // returned
}

func Client(c usersv1.UserServiceClient) deleter {
	return c // a client
}

func Any(v any) {
	_ = v.(interface{ GetAddress() *usersv1.Address }) // asked for
	switch v.(type) {
	case interface{ GetFirstName() string }: // switched over
	case interface{ GetLastName(int) string }: // no getter
	}
}

func Whole(u *usersv1.User) (any, interface{ String() string }) { return u, u }
`

func TestAMessageThatBecomesAnInterfaceIsReadThere(t *testing.T) {
	root, is, was := contract(t)
	text := strings.Replace(strings.Replace(through, "...GRPC", "...grpc.CallOption", 1), "import (\n\t\"context\"\n", "import (\n\t\"context\"\n\n\t\"google.golang.org/grpc\"\n", 1)
	index, err := consumers.Find(t.Context(), module(t, root, map[string]string{"shop.go": text}), is, was)
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Problems) > 0 {
		t.Fatalf("problems: %v", index.Problems)
	}
	lines := strings.Split(text, "\n")
	uses := func(element string, kind consumers.Kind) (marks []string) {
		for _, u := range index.Of(element) {
			if u.Kind == kind {
				_, mark, _ := strings.Cut(lines[u.Line-1], "// ")
				marks = append(marks, mark)
			}
		}
		slices.Sort(marks)
		return marks
	}
	want := []string{"a type argument", "a type argument of a type", "a variadic argument", "an argument", "appended", "assigned", "converted", "declared", "in a list",
		"in a loop", "in a map", "in a struct", "in a struct without names", "one of several results", "promoted", "returned", "returned by a literal", "sent"}
	if got := uses("users.v1.User.email", consumers.ThroughInterface); !slices.Equal(got, want) {
		t.Errorf("email is read through an interface where it is\n%q\nwant\n%q", got, want)
	}
	if got := uses("users.v1.UserService.DeleteUser", consumers.Calls); !slices.Equal(got, []string{"a client"}) {
		t.Errorf("a client that becomes an interface: %q", got)
	}
	for element, mark := range map[string]string{"users.v1.User.address": "asked for", "users.v1.User.first_name": "switched over"} {
		if got := uses(element, consumers.Perhaps); !slices.Equal(got, []string{mark}) {
			t.Errorf("%s may be used where it is %q; want %q", element, got, mark)
		}
	}
	for _, element := range []string{"users.v1.User.last_name", "users.v1.User.display_name", "users.v1.UserService.GetUser"} {
		if got := index.Of(element); len(got) > 0 {
			t.Errorf("%s is not used, and was found at %+v", element, got)
		}
	}
}

// After the getter is gone the compiler says where it is missed.
func TestAGetterThatIsGoneIsMissedWhereAMessageBecomesAnInterface(t *testing.T) {
	root, is, was := contract(t)
	index, err := consumers.Find(t.Context(), module(t, root, map[string]string{"shop.go": `package shop

import usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"

type nicknamed interface{ GetNickname() string }

func take(nicknamed)            {}
func generic[T nicknamed](v T)  {}

func Use(u *usersv1.User) nicknamed {
	take(u)
	generic(u)
	return u
}
`}), is, was)
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, u := range index.Of("users.v1.User.nickname") {
		if u.Missing && u.Error != "" && !slices.Contains(lines, u.Line) {
			lines = append(lines, u.Line)
		}
	}
	if want := []int{11, 12, 13}; !slices.Equal(lines, want) {
		t.Errorf("missed in lines %v; want %v: %+v", lines, want, index.Of("users.v1.User.nickname"))
	}
}

func TestFilesThatAreNotBuiltHereAreLookedAt(t *testing.T) {
	root, is, was := contract(t)
	const imports = "import usersv1 \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n\n"
	index, err := consumers.Find(t.Context(), module(t, root, map[string]string{
		"shop.go":           "package shop\n\n" + imports + "func user() *usersv1.User { return nil }\n\nvar _ = user\n",
		"tagged.go":         "//go:build integration\n\npackage shop\n\n" + imports + "func Tagged(u *usersv1.User) string { return u.GetEmail() }\n",
		"shop_plan9.go":     "package shop\n\nfunc Beside() string { return user().GetLastName() }\n",
		"shop_windows.go":   "package shop\n\nimport \"golang.org/x/sys/nowhere\"\n\nfunc Of() string { return nowhere.User().GetFirstName() }\n",
		"tagged_test.go":    "//go:build integration\n\npackage shop_test\n\n" + imports + "var _ = &usersv1.User{DisplayName: \"x\"}\n",
		"serve_wasm.go":     "package shop\n\nimport (\n\t\"context\"\n\n\tusersv1 \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n)\n\ntype server struct{ usersv1.UnimplementedUserServiceServer }\n\nfunc (server) GetUser(context.Context, *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {\n\treturn nil, nil\n}\n",
		"alone/alone.go":    "//go:build ignore\n\npackage main\n\n" + imports + "func main() { _ = usersv1.UserState_USER_STATE_ACTIVE }\n",
		"other/other.go":    "package other\n",
		"other/other_js.go": "package other\n\nfunc user() string { return x.GetAddress() }\n",
		"testdata/old.go":   "package shop\n\n" + imports + "func Old(u *usersv1.User) any { return u.GetVerified() }\n",
	}), is, was)
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Problems) > 0 {
		t.Errorf("problems: %v", index.Problems)
	}
	if want := []string{"alone/alone.go", "serve_wasm.go", "shop_plan9.go", "shop_windows.go", "tagged.go", "tagged_test.go"}; !slices.Equal(index.LeftOut, want) {
		t.Errorf("left out: %v; want %v", index.LeftOut, want)
	}
	for _, want := range []struct {
		element, path string
		kind          consumers.Kind
	}{
		{"users.v1.User.email", "tagged.go", consumers.Reads},
		{"users.v1.User.last_name", "shop_plan9.go", consumers.Reads},
		{"users.v1.User.first_name", "shop_windows.go", consumers.Perhaps},
		{"users.v1.User.display_name", "tagged_test.go", consumers.Literal},
		{"users.v1.UserService.GetUser", "serve_wasm.go", consumers.Serves},
		{"users.v1.UserState.USER_STATE_ACTIVE", "alone/alone.go", consumers.Constant},
	} {
		found := index.Of(want.element)
		if len(found) != 1 || found[0].Path != want.path || found[0].Kind != want.kind || !found[0].LeftOut || found[0].Missing || found[0].Error != "" {
			t.Errorf("%s: %+v; want it as %q in %s, which is not built here", want.element, found, want.kind, want.path)
		}
	}
	for _, element := range []string{"users.v1.User.address", "users.v1.User.verified"} {
		if found := index.Of(element); len(found) > 0 {
			t.Errorf("%s is not used, and was found at %+v", element, found)
		}
	}
}

// One broken module, or none that go knows, does not hide what its files name.
func TestAModuleThatDoesNotLoadIsReadByName(t *testing.T) {
	root, is, was := contract(t)
	index, err := consumers.Find(t.Context(), module(t, root, map[string]string{
		"shop.go":    "package shop\n\nimport _ \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n",
		"old/go.mod": "module example.com/old\n\ngo 1.26\n\nrequire BROKEN\n",
		"old/old.go": "package old\n\nimport usersv1 \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n\nfunc Name(u *usersv1.User) string { return u.GetEmail() + string(usersv1.File_users) }\n",
	}), is, was)
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Problems) != 1 || index.Problems[0].Where != "example.com/old" || strings.Contains(index.Problems[0].What, "\n") {
		t.Errorf("problems: %v", index.Problems)
	}
	if found := index.Of("users.v1.User.email"); len(found) != 1 || found[0].Kind != consumers.Perhaps || found[0].Path != "old/old.go" {
		t.Errorf("what its files name is not found: %+v", found)
	}
}

func TestEveryWorkspaceOfATreeIsLookedAt(t *testing.T) {
	root, is, was := contract(t)
	use := "package a\n\nimport usersv1 \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n\nfunc Name(u *usersv1.User) string { return u.GetEmail() }\n"
	files := map[string]string{"below/a/a.go": use, "below/go.work": "go 1.26.7\n\nuse ./a\n", "b/b.go": strings.Replace(use, "package a", "package b", 1), "shop.go": "package shop\n"}
	dir := module(t, root, files)
	for _, name := range []string{"go.mod", "go.sum"} {
		for _, folder := range []string{"below/a", "b"} {
			text := strings.Replace(files[name], "module example.com/shop", "module example.com/"+folder, 1)
			if err := os.WriteFile(filepath.Join(dir, folder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	index, err := consumers.Find(t.Context(), dir, is, was)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, u := range index.Of("users.v1.User.email") {
		paths = append(paths, u.Path)
	}
	if want := []string{"b/b.go", "below/a/a.go"}; !slices.Equal(paths, want) || len(index.Problems) > 0 || len(index.Modules) != 3 {
		t.Errorf("found in %v; want %v; modules %v, problems %v", paths, want, index.Modules, index.Problems)
	}
}
