package review

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/strictyaml"
)

// A configuration is what buf checks a workspace by, module by module, as far as it is written down: what a module does
// not say itself, the workspace says for it.
type configuration struct {
	text    string // all of it, for telling whether two are the same
	modules map[string]moduleConfiguration
	// plugins are the leaves of what the workspace says of plugins and policies.
	plugins map[string]bool
}

// A moduleConfiguration is what one module is checked by.
type moduleConfiguration struct {
	version string
	// checks are the sections breaking and lint.
	checks map[string]any
	// settings are the leaves of both, `breaking.ignore=proto/old`, without the rules that are asked for; and what of the
	// module's folder is left out.
	settings map[string]bool
	plugins  any
}

// configurationIn reads the configuration of the workspace in a folder; nil where it has none.
func configurationIn(dir string) (*configuration, error) {
	return readConfiguration(func(name string) (string, error) {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return string(data), err
	})
}

// configurationOf returns the configuration that a baseline had; nil where it had none, or where nothing is known of
// it, as of an image, which the report says.
func (r *run) configurationOf(ctx context.Context, b *Baseline) (*configuration, error) {
	if b.Commit != "" {
		return readConfiguration(func(name string) (string, error) { return committed(ctx, r.Dir, b.Commit, name) })
	}
	c, err := r.configurationAgainst(ctx, b.Name)
	if err == nil && c == nil {
		b.How += "; what it was checked by is not known"
	}
	return c, err
}

// configurationAgainst returns the configuration of an input of buf; nil where it has none that can be read here.
func (r *run) configurationAgainst(ctx context.Context, input string) (*configuration, error) {
	if git, revision, folder, ok := againstCommit(input); ok {
		if !filepath.IsAbs(git) {
			git = filepath.Join(r.Dir, git)
		}
		return readConfiguration(func(name string) (string, error) {
			at := path.Join(folder, name)
			listed, err := repo.Output(ctx, r.Dir, "git", "--git-dir", git, "ls-tree", "--full-tree", "--name-only", revision, "--", at)
			if err != nil || listed == "" {
				return "", said(err)
			}
			return repo.Output(ctx, r.Dir, "git", "--git-dir", git, "show", revision+":"+at)
		})
	}
	if !filepath.IsAbs(input) {
		input = filepath.Join(r.Dir, input)
	}
	if info, err := os.Stat(input); err == nil && info.IsDir() {
		return configurationIn(input)
	}
	return nil, nil
}

// readConfiguration reads a configuration; read returns a file, empty where there is none.
func readConfiguration(read func(name string) (string, error)) (*configuration, error) {
	c := &configuration{modules: map[string]moduleConfiguration{}, plugins: map[string]bool{}}
	documents := map[string]map[string]any{} // by folder of the module
	load := func(name string) (map[string]any, error) {
		text, err := read(name)
		if err != nil || text == "" {
			return nil, err
		}
		c.text += name + "\n" + strings.TrimSpace(text) + "\n"
		var document map[string]any
		if err := yaml.Unmarshal([]byte(text), &document); err != nil {
			return nil, fmt.Errorf("%s: %w", name, strictyaml.OneLine(err))
		}
		return document, nil
	}
	work, err := load("buf.work.yaml")
	if err != nil {
		return nil, err
	}
	folders, _ := work["directories"].([]any)
	if work == nil {
		folders = []any{"."}
	}
	for _, folder := range folders {
		at := path.Clean(fmt.Sprint(folder))
		document, err := load(path.Join(at, "buf.yaml"))
		if err != nil {
			return nil, err
		}
		if document != nil || work != nil {
			documents[at] = document
		}
	}
	if len(documents) == 0 {
		return nil, nil
	}
	for at, document := range documents {
		c.add(at, document)
	}
	return c, nil
}

// add takes in the modules of one buf.yaml.
func (c *configuration) add(at string, document map[string]any) {
	version, ok := document["version"].(string)
	if !ok {
		version = "v1"
	}
	for _, of := range []string{"plugins", "policies"} {
		for leaf := range leaves(document[of]) {
			c.plugins[of+leaf] = true
		}
	}
	add := func(at string, excludes any, sections ...map[string]any) {
		m := moduleConfiguration{version: version, checks: map[string]any{}, settings: map[string]bool{}, plugins: document["plugins"]}
		for _, check := range []string{"breaking", "lint"} {
			for _, section := range sections { // what the module says itself replaces all that the workspace says
				if said, there := section[check]; there && m.checks[check] == nil {
					m.checks[check] = said
				}
			}
			for leaf := range leaves(m.checks[check]) {
				if !strings.HasPrefix(leaf, ".use=") && !strings.HasPrefix(leaf, ".except=") {
					m.settings[check+leaf] = true
				}
			}
		}
		for leaf := range leaves(excludes) {
			m.settings["excludes"+leaf] = true
		}
		c.modules[at] = m
	}
	modules, _ := document["modules"].([]any)
	for _, module := range modules {
		if module, ok := module.(map[string]any); ok {
			folder, _ := module["path"].(string)
			add(path.Clean(folder), module["excludes"], module, document)
		}
	}
	if len(modules) == 0 {
		build, _ := document["build"].(map[string]any)
		add(at, build["excludes"], document)
	}
}

// leaves returns everything that a part of a YAML document says, one line each: `.ignore=proto/old`. The order of a
// list means nothing.
func leaves(node any) map[string]bool {
	said := map[string]bool{}
	var walk func(at string, node any)
	walk = func(at string, node any) {
		switch node := node.(type) {
		case map[string]any:
			for key, value := range node {
				walk(at+"."+key, value)
			}
		case []any:
			for _, value := range node {
				walk(at, value)
			}
		case nil:
		default:
			said[fmt.Sprintf("%s=%v", at, node)] = true
		}
	}
	walk("", node)
	return said
}

var (
	// kept are the settings of which a missing one checks less.
	kept = regexp.MustCompile(`\.disallow_comment_ignores=true$`)
	// unwanted are those of which a new one checks less.
	unwanted = regexp.MustCompile(`\.(ignore|ignore_only\.[^.=]+)=|^excludes=|\.ignore_unstable_packages=true$|\.disable_builtin=true$|\.allow_comment_ignores=true$|\.rpc_allow_[^=]*=true$`)
)

// weaker lists what a configuration checks less than another one did.
func (b Buf) weaker(ctx context.Context, was, is *configuration) ([]weakening, error) {
	const file = "buf.yaml"
	if is == nil {
		return nil, errors.New("buf.yaml is gone")
	}
	if was.text == is.text {
		return nil, nil
	}
	var found []weakening
	for _, leaf := range slices.Sorted(maps.Keys(was.plugins)) {
		if name, value, _ := strings.Cut(leaf, "="); !is.plugins[leaf] {
			found = append(found, weakening{file, name, value, "", fmt.Sprintf("buf.yaml no longer says %s: %s", name, value), digestOf(leaf)})
		}
	}
	// What several modules have in common is one thing, and says of which modules only where they are not all.
	in := map[weakening][]string{}
	for _, at := range slices.Sorted(maps.Keys(was.modules)) {
		now, there := is.modules[at]
		if !there {
			found = append(found, weakening{file, "modules", at, "", "buf.yaml no longer has the module " + at, digestOf("modules=" + at)})
			continue
		}
		weaker, err := b.weakerModule(ctx, was.modules[at], now)
		if err != nil {
			return nil, err
		}
		for _, w := range weaker {
			in[w] = append(in[w], at)
		}
	}
	for w, modules := range in {
		w.file = file
		if len(modules) < len(was.modules) {
			where := strings.Join(modules, ", ")
			w.attr, w.text = fmt.Sprintf("modules[%s].%s", where, w.attr), w.text+", in "+where
		}
		found = append(found, w)
	}
	slices.SortFunc(found, func(a, b weakening) int { return strings.Compare(a.attr+a.text, b.attr+b.text) })
	return found, nil
}

// weakerModule lists what one module is checked by no longer.
func (b Buf) weakerModule(ctx context.Context, was, is moduleConfiguration) ([]weakening, error) {
	var found []weakening
	for _, check := range []string{"breaking", "lint"} {
		old, err := b.asked(ctx, check, was)
		if err != nil {
			return nil, err
		}
		now, err := b.asked(ctx, check, is)
		if err != nil {
			return nil, err
		}
		lost := slices.DeleteFunc(slices.Clone(old), func(rule string) bool { return asksFor(now, rule) })
		if len(lost) == 0 {
			continue
		}
		listed := strings.Join(lost[:min(len(lost), 5)], ", ")
		if more := len(lost) - 5; more > 0 {
			listed += fmt.Sprintf(" and %d more", more)
		}
		found = append(found, weakening{
			attr: check + ".rules", old: fmt.Sprintf("%d rules", len(old)), new: fmt.Sprintf("%d rules", len(now)),
			text: fmt.Sprintf("buf.yaml no longer asks for %s (%s)", listed, check), digest: digestOf(check + strings.Join(old, ",") + " without " + strings.Join(lost, ",")),
		})
	}
	for leaf := range was.settings {
		if name, value, _ := strings.Cut(leaf, "="); kept.MatchString(leaf) && !is.settings[leaf] {
			found = append(found, weakening{attr: name, old: value, text: fmt.Sprintf("buf.yaml no longer says %s: %s", name, value), digest: digestOf(leaf)})
		}
	}
	for leaf := range is.settings {
		if name, value, _ := strings.Cut(leaf, "="); unwanted.MatchString(leaf) && !was.leavesOut(name, value) {
			found = append(found, weakening{attr: name, new: value, text: fmt.Sprintf("buf.yaml now says %s: %s", name, value), digest: digestOf(leaf)})
		}
	}
	return found, nil
}

// leavesOut tells whether a setting, or one for a folder around, is there already.
func (m moduleConfiguration) leavesOut(name, value string) bool {
	names := []string{name}
	if check, _, only := strings.Cut(name, ".ignore_only."); only {
		names = append(names, check+".ignore")
	}
	for at := path.Clean(value); ; at = path.Dir(at) {
		for _, name := range names {
			if m.settings[name+"="+at] || m.settings[name+"="+at+"/"] {
				return true
			}
		}
		if at == path.Dir(at) {
			return false
		}
	}
}

// asksFor tells whether rules find what a rule finds: it, or one that finds that and more.
func asksFor(asked []string, rule string) bool {
	if slices.Contains(asked, rule) || slices.Contains(asked, equivalents[rule]) {
		return true
	}
	stricter := strings.Replace(rule, "_WIRE_COMPATIBLE_", "_WIRE_JSON_COMPATIBLE_", 1)
	return stricter != rule && slices.Contains(asked, stricter)
}

// asked returns the ids of the rules, of one kind of check, that a module asks for, sorted.
func (b Buf) asked(ctx context.Context, check string, m moduleConfiguration) ([]string, error) {
	config := map[string]any{"version": m.version}
	if section := m.checks[check]; section != nil {
		config[check] = section
	}
	if m.version == "v2" && m.plugins != nil {
		config["plugins"] = b.started(ctx, m.plugins)
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("buf.yaml: %w", err)
	}
	return remember(b.kept, "asked "+b.Dir+" "+check+" "+string(text), func() ([]string, error) {
		out, err := repo.Output(ctx, b.Dir, b.Program, "config", "ls-"+check+"-rules", "--configured-only", "--config", string(text), "--format", "json")
		if err != nil {
			return nil, fmt.Errorf("list the %s rules of buf.yaml: %w", check, said(err))
		}
		return ruleIDs(out)
	})
}

// ruleIDs reads what `buf config ls-…-rules --format json` prints.
func ruleIDs(printed string) ([]string, error) {
	var ids []string
	for d := json.NewDecoder(strings.NewReader(printed)); d.More(); {
		var rule struct {
			ID string `json:"id"`
		}
		if err := d.Decode(&rule); err != nil {
			return nil, fmt.Errorf("list the rules of buf.yaml: %w", err)
		}
		ids = append(ids, rule.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// started returns plugins with those that `go tool` would start by the paths of their binaries. One that is no tool
// here any more is left out: that it is gone is found as such.
func (b Buf) started(ctx context.Context, plugins any) []any {
	list, _ := plugins.([]any)
	var found []any
	for _, p := range list {
		plugin, _ := p.(map[string]any)
		command, ok := plugin["plugin"].([]any)
		if !ok || len(command) != 3 || command[0] != "go" || command[1] != "tool" {
			found = append(found, p)
			continue
		}
		if program, err := repo.Output(ctx, b.Dir, "go", "tool", "-n", fmt.Sprint(command[2])); err == nil {
			plugin = maps.Clone(plugin)
			plugin["plugin"] = []any{program}
			found = append(found, plugin)
		}
	}
	return found
}
