package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// An edit replaces one statement of one .proto file. It names elements and not lines, so that it
// does not depend on how the file is laid out; where it does not find its element the test fails.
type edit struct {
	file   string // from the root
	block  string // what the statement stands in, as "message User"; empty means the whole file
	begin  string // matches the beginning of the statement
	change func(statement string) string
}

// apply makes the edit in the working tree.
func (e edit) apply(tr tree) {
	tr.t.Helper()
	path := filepath.Join(tr.dir, filepath.FromSlash(e.file))
	raw, err := os.ReadFile(path)
	if err != nil {
		tr.t.Fatal(err)
	}
	text := string(raw)
	from, to := 0, len(text)
	if e.block != "" {
		from, to = statement(tr.t, text, 0, regexp.QuoteMeta(e.block)+`\b`)
	}
	start, end := statement(tr.t, text, from, e.begin)
	if end > to {
		tr.t.Fatalf("%s: the mutation does not find %q in %s", e.file, e.begin, e.block)
	}
	changed := text[:start] + e.change(text[start:end]) + text[end:]
	if changed == text {
		tr.t.Fatalf("%s: the mutation of %q in %s changes nothing", e.file, e.begin, e.block)
	}
	tr.write(e.file, changed)
}

// statement returns where the first statement at or after from that begin matches starts and ends:
// with its braces, or with its semicolon where it has none.
func statement(t *testing.T, text string, from int, begin string) (start, end int) {
	t.Helper()
	at := regexp.MustCompile(`(?m)^[ \t]*` + begin).FindStringIndex(text[from:])
	if at == nil {
		t.Fatalf("the mutation does not find %q: name an element that the contract has", begin)
	}
	start = from + at[0]
	depth := 0
	for i := start; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 && text[i] == '}' {
				return start, i + 1
			}
		case ';':
			if depth == 0 {
				return start, i + 1
			}
		}
	}
	t.Fatalf("the statement %q has no end", begin)
	return 0, 0
}

// field matches the declaration of a field or of an enum value by its name.
func field(name string) string { return `(?:[\w.<>, ]+ )?` + name + ` = ` }

// rpc matches the declaration of a method.
func rpc(name string) string { return `rpc ` + name + `\b` }

func remove(string) string { return "" }

func replace(old, with string) func(string) string {
	return func(statement string) string { return strings.Replace(statement, old, with, 1) }
}

// number gives the element another number.
func number(n int) func(string) string {
	return func(statement string) string {
		return regexp.MustCompile(`= \d+`).ReplaceAllString(statement, fmt.Sprintf("= %d", n))
	}
}

// bare replaces a field by one without options, so that no validation rule has to fit its type.
func bare(declaration string) func(string) string {
	return func(string) string { return "  " + declaration + ";" }
}

// copyContract copies everything that the gate reads from the repository of this test into tr.
func copyContract(tr tree) {
	tr.t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, name := range []string{"proto", "third_party"} {
		if err := os.CopyFS(filepath.Join(tr.dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			tr.t.Fatal(err)
		}
	}
	config, err := os.ReadFile(filepath.Join(root, "buf.yaml"))
	if err != nil {
		tr.t.Fatal(err)
	}
	// A folder without go.work has no tools: buf is told where the plugin is, which also spares every call of it the time
	// that the go command takes.
	const plugin = "[go, tool, concordat-rules]"
	if !strings.Contains(string(config), plugin) {
		tr.t.Fatalf("buf.yaml does not name the plugin as %s", plugin)
	}
	tr.write("buf.yaml", strings.Replace(string(config), plugin, strconv.Quote(buildTool(tr.t, "concordat-rules")), 1))
	// What the real file names are commits of the real repository.
	tr.write("proto/baselines.yaml", "release: none\n")
}

// buildBuf returns the path of the buf that CI runs.
func buildBuf(t *testing.T) string { return buildTool(t, "buf") }

// buildTool returns the path of a tool of the tools module.
func buildTool(t *testing.T, name string) string {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	path, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "tool", "-n", name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
