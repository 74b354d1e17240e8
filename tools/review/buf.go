package review

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/strictyaml"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// A Buf runs buf in one workspace.
type Buf struct {
	// Program is the path of the binary.
	Program string
	// Dir is the folder with buf.yaml.
	Dir string

	// kept holds what does not change, for a program that reviews more than once: the images of commits, and what a
	// buf.yaml asks for.
	kept *sync.Map
}

// FindBuf returns the buf that the workspace at dir uses: the one of `go tool` where it has one, else the one on the
// PATH.
func FindBuf(ctx context.Context, dir string) (Buf, error) {
	for _, from := range []string{dir, filepath.Join(dir, "tools")} {
		if info, err := os.Stat(from); err != nil || !info.IsDir() {
			continue
		}
		if program, err := repo.Output(ctx, from, "go", "tool", "-n", "buf"); err == nil {
			// `go tool -n` prints a path inside the build cache, built.
			return Buf{Program: program, Dir: dir, kept: new(sync.Map)}, nil
		}
	}
	program, err := exec.LookPath("buf")
	if err != nil {
		return Buf{}, errors.New("buf is neither a tool of a go.mod here (go get -tool github.com/bufbuild/buf/cmd/buf) nor on the PATH")
	}
	return Buf{Program: program, Dir: dir, kept: new(sync.Map)}, nil
}

// imageOf compiles the contract of a commit, which lies in a folder. An empty commit means an input that is none.
func (b Buf) imageOf(ctx context.Context, commit, input string) (*schema.Image, error) {
	if commit == "" {
		return b.Build(ctx, input)
	}
	return remember(b.kept, "image "+b.Dir+" "+commit, func() (*schema.Image, error) { return b.Build(ctx, input) })
}

// A memory is what was made for one key.
type memory[V any] struct {
	mu    sync.Mutex
	made  bool
	value V
}

// remember returns what was made for a key before, or makes it; who asks meanwhile waits. What failed is not kept. A key
// is for values of one type.
func remember[V any](kept *sync.Map, key string, make func() (V, error)) (V, error) {
	if kept == nil {
		return make()
	}
	found, _ := kept.LoadOrStore(key, new(memory[V]))
	m, ok := found.(*memory[V])
	if !ok {
		return make()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made {
		return m.value, nil
	}
	value, err := make()
	if err == nil {
		m.made, m.value = true, value
	}
	return value, err
}

// Build compiles any input of buf: a folder, `.git#ref=<commit>`, an image.
func (b Buf) Build(ctx context.Context, input string) (*schema.Image, error) {
	out, err := os.CreateTemp("", "image-*.binpb")
	if err != nil {
		return nil, err
	}
	out.Close()
	defer os.Remove(out.Name())
	if _, err := repo.Output(ctx, b.Dir, b.Program, "build", input, "--output", out.Name(), "--error-format", "json"); err != nil {
		return nil, fmt.Errorf("compile %s: %w", input, b.uncompiled(err))
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		return nil, err
	}
	image, err := schema.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", input, err)
	}
	return image, nil
}

// uncompiled tells of the first mistake that `buf build --error-format=json` found, as buf itself would, and of how many
// there are. One mistake often makes buf find many.
func (b Buf) uncompiled(err error) error {
	failed, ok := errors.AsType[*repo.RunError](err)
	if !ok || failed.Code != foundSomething {
		return said(err)
	}
	mistakes, problem := findings(failed.Stderr)
	if problem != nil || len(mistakes) == 0 {
		return said(err)
	}
	first := b.withImport(mistakes[0])
	if more := len(mistakes) - 1; more > 0 {
		return fmt.Errorf("%w (and %d more: buf build)", first, more)
	}
	return first
}

// withImport names the file that a mistake about an import does not name: it stands in the line that the mistake is in.
func (b Buf) withImport(f bufFinding) bufFinding {
	at := f.Path
	if !filepath.IsAbs(at) {
		at = filepath.Join(b.Dir, at)
	}
	text, err := os.ReadFile(at)
	if err != nil || !strings.HasPrefix(f.Message, "imported file") {
		return f
	}
	for n, line := range strings.Split(string(text), "\n") {
		if named := inQuotes.FindString(line); n == f.Line-1 && named != "" && !strings.Contains(f.Message, named) {
			f.Message += ": " + named
		}
	}
	return f
}

// said reduces the error of a program to what the program said.
func said(err error) error {
	if failed, ok := errors.AsType[*repo.RunError](err); ok && failed.Stderr != "" {
		text := failed.Stderr
		if at := strings.LastIndex(text, "Failure: "); at >= 0 {
			text = text[at+len("Failure: "):] // what stands before it is how the program is used
		}
		return errors.New(strings.Join(strings.Fields(text), " "))
	}
	return err
}

// A bufFinding is what `buf breaking --error-format=json` prints, one a line.
type bufFinding struct {
	Path    string `json:"path"` // from the folder with buf.yaml, or as imports say it
	Line    int    `json:"start_line"`
	Column  int    `json:"start_column"`
	Rule    string `json:"type"`
	Message string `json:"message"`
}

// Error is the finding as buf prints it for people.
func (f bufFinding) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.Path, f.Line, f.Column, f.Message)
}

// findings reads what buf printed by --error-format=json.
func findings(printed string) (found []bufFinding, err error) {
	for lines := json.NewDecoder(strings.NewReader(printed)); lines.More(); {
		var f bufFinding
		if err := lines.Decode(&f); err != nil {
			return nil, fmt.Errorf("read the findings of buf: %w", err)
		}
		found = append(found, f)
	}
	return found, nil
}

// foundSomething is the exit code of a buf check that ran and was not satisfied.
const foundSomething = 100

// Breaking runs `buf breaking` with the configuration of the workspace.
func (b Buf) Breaking(ctx context.Context, against string) ([]bufFinding, error) {
	config, err := b.config(ctx)
	if err != nil {
		return nil, err
	}
	out, err := repo.Output(ctx, b.Dir, b.Program, "breaking", "--config", config, "--against", against, "--error-format", "json")
	if err == nil {
		return nil, nil
	}
	failed, ok := errors.AsType[*repo.RunError](err)
	if !ok || failed.Code != foundSomething {
		return nil, fmt.Errorf("buf breaking: %w", said(err))
	}
	found, problem := findings(out)
	if problem != nil {
		return nil, problem
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("buf breaking failed without a finding: %w", err)
	}
	if at := slices.IndexFunc(found, func(f bufFinding) bool { return f.Rule == "COMPILE" }); at >= 0 {
		return nil, b.withImport(found[at])
	}
	return found, nil
}

// config returns what buf is to be configured by: buf.yaml with the plugins that `go tool` would start by the paths of
// their binaries. buf starts a plugin several times in one run, and `go tool` takes ten times as long as most plugins.
func (b Buf) config(ctx context.Context) (string, error) {
	text, err := os.ReadFile(filepath.Join(b.Dir, "buf.yaml"))
	if err != nil {
		return "", err
	}
	return remember(b.kept, "config "+b.Dir+" "+string(text), func() (string, error) {
		var document struct {
			Plugins []struct {
				Plugin yaml.Node `yaml:"plugin"`
			} `yaml:"plugins"`
		}
		if err := yaml.Unmarshal(text, &document); err != nil {
			return "", fmt.Errorf("buf.yaml: %w", strictyaml.OneLine(err))
		}
		changed := string(text)
		for _, p := range document.Plugins {
			var command []string
			if p.Plugin.Decode(&command) != nil || len(command) != 3 || command[0] != "go" || command[1] != "tool" {
				continue
			}
			program, err := repo.Output(ctx, b.Dir, "go", "tool", "-n", command[2])
			if err != nil {
				return "", fmt.Errorf("build the plugin %s of buf.yaml: %w", command[2], said(err))
			}
			changed = strings.ReplaceAll(changed, fmt.Sprintf("plugin: [go, tool, %s]", command[2]), fmt.Sprintf("plugin: [%q]", program))
		}
		return changed, nil
	})
}

// Configured returns the ids of the breaking rules that buf.yaml asks for, of any of its modules.
func (b Buf) Configured(ctx context.Context) (map[string]bool, error) {
	config, err := b.config(ctx)
	if err != nil {
		return nil, err
	}
	return remember(b.kept, "configured "+b.Dir+" "+config, func() (map[string]bool, error) { return b.configured(ctx, config) })
}

func (b Buf) configured(ctx context.Context, config string) (map[string]bool, error) {
	configured := map[string]bool{}
	modules := newDisk(b.Dir).modules
	for _, module := range modules {
		args := []string{"config", "ls-breaking-rules", "--configured-only", "--config", config, "--format", "json"}
		if len(modules) > 1 {
			args = append(args, "--module-path", module)
		}
		out, err := repo.Output(ctx, b.Dir, b.Program, args...)
		if err != nil {
			return nil, fmt.Errorf("list the breaking rules of buf.yaml: %w", said(err))
		}
		ids, err := ruleIDs(out)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			configured[id] = true
		}
	}
	return configured, nil
}

// packageGone is the rule of buf that packages stay.
const packageGone = "PACKAGE_NO_DELETE"

// equivalents are the rules of buf's other categories by the rule of ours that finds what they find.
var equivalents = map[string]string{
	packageGone: "FILE_NO_DELETE", "PACKAGE_ENUM_NO_DELETE": "ENUM_NO_DELETE", "PACKAGE_MESSAGE_NO_DELETE": "MESSAGE_NO_DELETE",
	"PACKAGE_SERVICE_NO_DELETE": "SERVICE_NO_DELETE", "PACKAGE_EXTENSION_NO_DELETE": "EXTENSION_NO_DELETE",
	"FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED": "FIELD_NO_DELETE", "FIELD_NO_DELETE_UNLESS_NAME_RESERVED": "FIELD_NO_DELETE",
	"ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED": "ENUM_VALUE_NO_DELETE", "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED": "ENUM_VALUE_NO_DELETE",
	"FIELD_WIRE_COMPATIBLE_TYPE": "FIELD_SAME_TYPE", "FIELD_WIRE_JSON_COMPATIBLE_TYPE": "FIELD_SAME_TYPE",
	"FIELD_WIRE_COMPATIBLE_CARDINALITY": "FIELD_SAME_CARDINALITY", "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY": "FIELD_SAME_CARDINALITY",
}

// equivalent returns the rule of ours that finds what a rule of buf finds.
func equivalent(bufRule string) string {
	if ours, ok := equivalents[bufRule]; ok {
		return ours
	}
	return bufRule
}

// inQuotes matches what buf names in its messages.
var inQuotes = regexp.MustCompile(`"([^"]*)"`)

// likeness says how much a finding of ours looks like one of buf; below zero they are not the same.
func likeness(ours *rules.Finding, theirs bufFinding) int {
	// A package is gone when its files are, or when they are of another one.
	whole := theirs.Rule == packageGone && ours.Rule == "FILE_SAME_PACKAGE"
	if ours.Rule != equivalent(theirs.Rule) && !whole {
		return -1
	}
	score := 0
	path, line := ours.At.Path, ours.At.Line
	if path != "" && (theirs.Path == path || strings.HasSuffix(theirs.Path, "/"+path)) {
		score += 2
		if line > 0 && theirs.Line >= line && theirs.Line <= ours.At.EndLine {
			score++
		}
	}
	if theirs.Rule == packageGone {
		if strings.Contains(theirs.Message, fmt.Sprintf("%q", ours.Package)) {
			return 2
		}
		return -1
	}
	known := map[string]bool{ours.Element: true, ours.Old: true, ours.New: true}
	for _, part := range strings.Split(ours.Element, ".") {
		known[part] = true
	}
	change := ours.Change()
	for _, e := range []*schema.Element{change.Before, change.After} {
		if e == nil {
			continue
		}
		known[fmt.Sprint(e.Number)], known[e.Short()], known[e.Name] = true, true, true
		known[strings.TrimPrefix(e.Name, e.Package+".")] = true
		if e.Parent != nil {
			known[strings.TrimPrefix(e.Parent.Name, e.Package+".")], known[e.Parent.Name] = true, true
		}
	}
	tokens := inQuotes.FindAllStringSubmatch(theirs.Message, -1)
	for _, token := range tokens {
		if known[token[1]] {
			score += 2
		}
	}
	if score == 0 {
		return -1
	}
	return score
}

// pair finds for each finding of buf the finding of ours that says the same. What buf finds and we do not is returned.
// Several findings of buf may be one of ours: a reserved range that is gone is one finding a number, there.
func pair(ours []*rules.Finding, theirs []bufFinding) (paired map[*rules.Finding]bool, unpaired []bufFinding) {
	paired = map[*rules.Finding]bool{}
	for _, b := range theirs {
		best, score := -1, 0
		for n, f := range ours {
			s := likeness(f, b)
			if s > 0 && paired[f] {
				s-- // one that has no pair yet goes first
			}
			if s > score {
				best, score = n, s
			}
			if s > 0 && b.Rule == packageGone {
				paired[f] = true // all of its files
			}
		}
		if best < 0 {
			unpaired = append(unpaired, b)
			continue
		}
		paired[ours[best]] = true
	}
	return paired, unpaired
}

// alien makes a finding of one of buf that no rule of ours explains: another rule, or a plugin's.
func alien(b bufFinding, before, after *schema.Image) *rules.Finding {
	f := &rules.Finding{
		Rule: b.Rule, Level: rules.Break, Kind: schema.File, Element: b.Path, Text: b.Message, Buf: true,
		Axes:   rules.Axes{Wire: rules.Risk, JSON: rules.Risk, Source: rules.Risk, Semantics: rules.Risk},
		Why:    "buf finds it, and this review cannot say more about it.",
		WayOut: "Read the rule: go tool buf config ls-breaking-rules.",
		At:     schema.Position{Path: b.Path, Line: b.Line, Column: b.Column},
		New:    b.Message,
	}
	for _, file := range slices.Concat(before.Files, after.Files) {
		if strings.HasSuffix(b.Path, file.Name) {
			f.Element, f.Package, f.At.Path, f.Baseline = file.Name, file.Package, file.Name, file.Digest()
			break
		}
	}
	f.Fingerprint = rules.Fingerprint(f.Rule, f.Element, "", "", f.New, f.Baseline)
	return f
}
