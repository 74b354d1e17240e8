package review

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// size is that of the large contract: so many packages, with so many messages and services in each, and a Go package that uses
// each of them.
type size struct{ packages, messages, services int }

func (r *run) size() size {
	if r.opts.Quick {
		return size{5, 40, 6}
	}
	return size{50, 40, 6} // 2,000 messages and 300 services
}

// writeLarge writes a repository with a large contract, its generated code and the code that uses it, commits it, and removes a
// field in the middle, from the generated code as well.
func (r *run) writeLarge(ctx context.Context) (*contract, error) {
	s := r.size()
	c := &contract{
		dir: filepath.Join(r.dir, "large"), rule: "FIELD_NO_DELETE", uses: 3,
		element: fmt.Sprintf("shop.p%02d.v1.Message%02d.amount", s.packages/2, s.messages/2),
	}
	files, err := r.goModule()
	if err != nil {
		return nil, err
	}
	if files["buf.gen.yaml"], err = r.generation(ctx); err != nil {
		return nil, err
	}
	files["buf.yaml"] = "version: v2\nmodules:\n  - path: proto\n  - path: third_party\nbreaking:\n  use:\n    - FILE\n  ignore:\n    - third_party\n"
	for p := range s.packages {
		files[protoPath(p)] = s.schema(p)
		files[fmt.Sprintf("app/c%02d/c%02d.go", p, p)] = s.consumer(p)
	}
	if err := write(c.dir, files); err != nil {
		return nil, err
	}
	if err := os.CopyFS(filepath.Join(c.dir, "third_party", "buf"), os.DirFS(filepath.Join(r.opts.Root, "third_party", "buf"))); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message", "the contract"}} {
		if args[0] == "add" {
			if _, err := r.output(ctx, c.dir, r.buf, "generate"); err != nil {
				return nil, err
			}
		}
		if _, err := r.git(ctx, c.dir, args...); err != nil {
			return nil, err
		}
	}
	if c.base, err = r.git(ctx, c.dir, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	middle := protoPath(s.packages / 2)
	message := fmt.Sprintf("message Message%02d {", s.messages/2)
	before, after, _ := strings.Cut(files[middle], message)
	removed := map[string]string{middle: before + message + strings.Replace(after, amount, "  reserved 2;\n  reserved \"amount\";\n", 1)}
	if err := write(c.dir, removed); err != nil {
		return nil, err
	}
	if _, err := r.output(ctx, c.dir, r.buf, "generate"); err != nil {
		return nil, err
	}
	_, err = r.git(ctx, c.dir, "commit", "--quiet", "--all", "--message", "remove a field")
	return c, err
}

func protoPath(p int) string { return fmt.Sprintf("proto/shop/p%02d/v1/p%02d.proto", p, p) }

// moduleLine is the first of a go.mod.
var moduleLine = regexp.MustCompile(`(?m)^module .*$`)

// goModule returns a go.mod that requires what ours does for generated code.
func (r *run) goModule() (map[string]string, error) {
	files := map[string]string{}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(r.opts.Root, "gen", name))
		if err != nil {
			return nil, err
		}
		files[name] = moduleLine.ReplaceAllString(string(text), "module example.com/shop")
	}
	return files, nil
}

// generation returns what generates the code, with the plugins that the repository pins.
func (r *run) generation(ctx context.Context) (string, error) {
	text := "version: v2\ninputs:\n  - directory: proto\nmanaged:\n  enabled: true\n  disable:\n    - path: buf\n  override:\n" +
		"    - file_option: go_package_prefix\n      value: example.com/shop/gen\nplugins:\n"
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		at, err := r.output(ctx, r.opts.Root, "go", "tool", "-n", plugin)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf("  - local: [%q]\n    out: gen\n    opt: paths=source_relative\n", at)
	}
	return text, nil
}

func write(dir string, files map[string]string) error {
	for name, text := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// amount is the field that one message loses.
const amount = "  // How much it is.\n  int64 amount = 2 [(buf.validate.field).int64.gte = 0];\n"

// schema returns the schema of one package. Messages refer to the next one, eight in a row.
func (s size) schema(p int) string {
	var text strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	say("syntax = \"proto3\";\n\npackage shop.p%02d.v1;\n\nimport \"buf/validate/validate.proto\";\n", p)
	for n := range s.services {
		say("// Service%02d does what is asked.\nservice Service%02d {", n, n)
		for m := range 4 {
			from := (n*4 + m) % (s.messages - 1)
			say("  // Do%d does it.\n  rpc Do%d(Message%02d) returns (Message%02d);", m, m, from, from+1)
		}
		say("}\n")
	}
	say("// State is how it stands.\nenum State {\n  // Not said.\n  STATE_UNSPECIFIED = 0;\n  // On.\n  STATE_ON = 1;\n  // Off.\n  STATE_OFF = 2;\n}\n")
	for n := range s.messages {
		say("// Message%02d is one of many.\nmessage Message%02d {", n, n)
		say("  // What it is called.\n  string name = 1 [(buf.validate.field).string.max_len = 100];\n%s", amount)
		say("  // Whether it is on.\n  bool active = 3;\n  // What it is about.\n  repeated string tags = 4 [(buf.validate.field).repeated.max_items = 10];")
		say("  // How it stands.\n  State state = 5 [(buf.validate.field).enum.defined_only = true];\n  // More of it.\n  map<string, string> labels = 6;")
		if n%8 != 7 && n+1 < s.messages {
			say("  // The next.\n  Message%02d next = 7;", n+1)
		}
		say("  // What came of it.\n  oneof result {\n    // In words.\n    string text = 8;\n    // In numbers.\n    int64 number = 9;\n  }")
		say("  // A note.\n  optional string note = 10 [(buf.validate.field).string.max_len = 1000];\n}\n")
	}
	return text.String()
}

// consumer returns a Go package that serves one package of the contract and calls the next one.
func (s size) consumer(p int) string {
	var text strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	next := (p + 1) % s.packages
	say("// Package c%02d serves and calls.\npackage c%02d\n\nimport (\n\t\"context\"\n", p, p)
	say("\town \"example.com/shop/gen/shop/p%02d/v1\"\n\tother \"example.com/shop/gen/shop/p%02d/v1\"\n)\n", p, next)
	for n := range s.services {
		say("type server%02d struct{ own.UnimplementedService%02dServer }\n", n, n)
		for m := range 4 {
			from := (n*4 + m) % (s.messages - 1)
			say("func (s *server%02d) Do%d(ctx context.Context, r *own.Message%02d) (*own.Message%02d, error) {", n, m, from, from+1)
			say("\treturn &own.Message%02d{Name: r.GetName(), Amount: r.GetAmount() + 1, Tags: r.GetTags(), State: own.State_STATE_ON}, nil\n}\n", from+1)
		}
		say("func call%02d(ctx context.Context, c other.Service%02dClient) (int64, error) {", n, n)
		say("\ta, err := c.Do0(ctx, &other.Message%02d{Name: \"a\", Active: true})\n\tif err != nil {\n\t\treturn 0, err\n\t}\n\treturn a.GetAmount(), nil\n}\n", n*4%(s.messages-1))
	}
	for n := range s.messages {
		say("func read%02d(m *own.Message%02d) int64 {\n\tif m.GetActive() && m.GetNote() != \"\" {\n\t\tm.Name = m.GetNote()\n\t}", n, n)
		say("\tswitch m.GetResult().(type) {\n\tcase *own.Message%02d_Text:\n\t\treturn int64(len(m.GetText()) + len(m.Labels))\n\tdefault:\n\t\treturn m.GetAmount() + m.GetNumber()\n\t}\n}\n", n)
	}
	return text.String()
}
