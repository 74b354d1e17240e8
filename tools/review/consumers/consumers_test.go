package consumers_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/consumers"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// contract returns the image of this repository's contract and, of the same contract, one in which a message, a field, a
// value and a method were there that are gone.
func contract(t *testing.T) (root string, is, was *schema.Image) {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	buf, err := review.FindBuf(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if is, err = buf.Build(t.Context(), "."); err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	for _, file := range is.Descriptors() {
		file = proto.CloneOf(file)
		for _, m := range file.GetMessageType() {
			if file.GetPackage() == "users.v1" && m.GetName() == "User" {
				nickname := proto.CloneOf(m.GetField()[0])
				nickname.Name, nickname.JsonName, nickname.Number = proto.String("nickname"), proto.String("nickname"), proto.Int32(99)
				nickname.Options = nil
				m.Field = append(m.Field, nickname)
			}
		}
		for _, s := range file.GetService() {
			if s.GetName() == "UserService" {
				ping := proto.CloneOf(s.GetMethod()[0])
				ping.Name, ping.Options = proto.String("PingUser"), nil
				s.Method = append(s.Method, ping)
			}
		}
		set.File = append(set.File, file)
	}
	data, err := proto.Marshal(&set)
	if err != nil {
		t.Fatal(err)
	}
	if was, err = schema.Parse(data); err != nil {
		t.Fatal(err)
	}
	return root, is, was
}

// module writes a Go module that uses the generated code of this repository, and returns its folder.
func module(t *testing.T, root string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	mod, err := os.ReadFile(filepath.Join(root, "gen", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "gen", "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const gen = "github.com/concordat-dev/concordat/gen"
	text := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(string(mod), "module example.com/shop")
	files["go.mod"] = text + fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", gen, gen, filepath.Join(root, "gen"))
	files["go.sum"] = string(sum)
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const shop = `package shop

import (
	"context"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

type server struct {
	usersv1.UnimplementedUserServiceServer
}

func (s *server) GetUser(ctx context.Context, r *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) { // serves
	return nil, nil
}

func Use(ctx context.Context, c usersv1.UserServiceClient, u *usersv1.User) string {
	u.DisplayName = "x"                                                // writes
	_ = &usersv1.User{Email: "a@example.com"}                           // sets
	_ = &fieldmaskpb.FieldMask{Paths: []string{"first_name"}}           // names in a string
	if _, err := c.DeleteUser(ctx, &usersv1.DeleteUserRequest{}); err != nil { // calls
		return u.LastName // reads
	}
	_, _ = protojson.Marshal(u) // reads all of
	switch u.GetState() {       // no default
	case usersv1.UserState_USER_STATE_ACTIVE: // names
	}
	return u.GetEmail() // reads
}

func Result(r *paymentsv1.ProcessChargesResponse) {
	switch r.GetResult().(type) {
	case *paymentsv1.ProcessChargesResponse_Error: // switches over
	}
}
`

func TestEveryKindOfUseIsFound(t *testing.T) {
	root, is, was := contract(t)
	dir := module(t, root, map[string]string{"shop.go": shop})
	index, err := consumers.Find(t.Context(), dir, is, was)
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Problems) > 0 {
		t.Fatalf("problems: %v", index.Problems)
	}
	lines := strings.Split(shop, "\n")
	at := func(mark string) int {
		for n, line := range lines {
			if strings.Contains(line, mark) {
				return n + 1
			}
		}
		t.Fatalf("no line has %q", mark)
		return 0
	}
	for _, want := range []struct {
		element string
		kind    consumers.Kind
		mark    string
	}{
		{"users.v1.User.display_name", consumers.Writes, "// writes"},
		{"users.v1.User.email", consumers.Literal, "// sets"},
		{"users.v1.User.email", consumers.Reads, "u.GetEmail()"},
		{"users.v1.User.last_name", consumers.Reads, "// reads\n"},
		{"users.v1.User.first_name", consumers.NamedInText, "// names in a string"},
		{"users.v1.UserService.DeleteUser", consumers.Calls, "// calls"},
		{"users.v1.UserService.GetUser", consumers.Serves, "// serves"},
		{"users.v1.UserState", consumers.Undefaulted, "// no default"},
		{"users.v1.UserState.USER_STATE_ACTIVE", consumers.Constant, "// names\n"},
		{"users.v1.User", consumers.Dynamic, "// reads all of"},
		{"payments.v1.ProcessChargesResponse.error", consumers.OneofCase, "// switches over"},
	} {
		line := at(strings.TrimSuffix(want.mark, "\n"))
		if strings.HasSuffix(want.mark, "\n") {
			line = slices.IndexFunc(lines, func(l string) bool { return strings.HasSuffix(l, strings.TrimSuffix(want.mark, "\n")) }) + 1
		}
		found := slices.ContainsFunc(index.Of(want.element), func(u consumers.Use) bool {
			return u.Kind == want.kind && u.Line == line && u.Path == "shop.go" && u.Module == "example.com/shop" && u.Error == "" && !u.Missing
		})
		if !found {
			t.Errorf("%s: no use %q in line %d; found %+v", want.element, want.kind, line, index.Of(want.element))
		}
	}
	if unused := index.Of("users.v1.User.address"); len(unused) > 0 {
		t.Errorf("users.v1.User.address is not used, and was found at %+v", unused)
	}
}

// What is gone from the generated code is found where code still names it, and with it what the compiler says.
func TestUsesOfWhatIsGoneAreFoundInCodeThatDoesNotCompile(t *testing.T) {
	root, is, was := contract(t)
	dir := module(t, root, map[string]string{"shop.go": `package shop

import (
	"context"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

func Use(ctx context.Context, c usersv1.UserServiceClient, u *usersv1.User) string {
	_, _ = c.PingUser(ctx, nil)
	_ = &usersv1.User{Nickname: "n"}
	return u.GetNickname() + u.GetEmail()
}
`})
	index, err := consumers.Find(t.Context(), dir, is, was)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		element string
		line    int
	}{{"users.v1.UserService.PingUser", 10}, {"users.v1.User.nickname", 11}, {"users.v1.User.nickname", 12}} {
		if !slices.ContainsFunc(index.Of(want.element), func(u consumers.Use) bool { return u.Line == want.line && u.Missing && u.Error != "" }) {
			t.Errorf("%s is not found as missing in line %d: %+v", want.element, want.line, index.Of(want.element))
		}
	}
	if len(index.Of("users.v1.User.email")) != 1 {
		t.Errorf("what stands beside it is not found: %+v", index.Of("users.v1.User.email"))
	}
	if len(index.Problems) == 0 || index.Problems[0].Where != "example.com/shop" {
		t.Errorf("that the package does not compile is not said: %v", index.Problems)
	}
}

func TestATreeThatCannotBeAnalysedSaysSo(t *testing.T) {
	_, is, _ := contract(t)
	for name, row := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no module at all":           {map[string]string{"README.md": "nothing"}, "no go.work and no go.mod"},
		"a go.work that is broken":   {map[string]string{"go.work": "go 1.26\n\nuse ./nowhere\n"}, "nowhere"},
		"a go.mod that is broken":    {map[string]string{"go.mod": "modul example.com/x\n", "x.go": "package x\n"}, "go.mod"},
		"an import that nobody has":  {map[string]string{"go.mod": "module example.com/x\n\ngo 1.26\n", "x.go": "package x\n\nimport _ \"example.com/nowhere\"\n"}, "example.com/nowhere"},
		"Go code that is no Go code": {map[string]string{"go.mod": "module example.com/x\n\ngo 1.26\n", "x.go": "package x\n\nfunc {\n"}, "x.go"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range row.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			index, err := consumers.Find(t.Context(), dir, is)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(index.Problems, func(p consumers.Problem) bool { return strings.Contains(p.Where+" "+p.What, row.want) }) {
				t.Errorf("problems are %v; want one that says %q", index.Problems, row.want)
			}
		})
	}
}

// The module's own code compiles: what the test writes is what it says.
func TestTheModuleOfTheTestCompiles(t *testing.T) {
	root, _, _ := contract(t)
	dir := module(t, root, map[string]string{"shop.go": shop})
	cmd := exec.CommandContext(t.Context(), "go", "vet", "./...")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
