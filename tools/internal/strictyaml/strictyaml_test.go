package strictyaml

import (
	"errors"
	"strings"
	"testing"
)

type settings struct {
	Name  string   `yaml:"name"`
	Lists []string `yaml:"lists"`
}

func TestWhatIsWrongIsOneLineAboutTheFile(t *testing.T) {
	for name, row := range map[string]struct{ text, says string }{
		"a key that is not known": {"name: a\nnmae: b\n", "line 2: field nmae not found"},
		"two of them":             {"a: 1\nb: 2\n", "line 1: field a not found; line 2: field b not found"},
		"a list for a text":       {"name: [a]\n", "line 1: cannot unmarshal !!seq"},
		"a text for a list":       {"lists: a\n", "line 1: cannot unmarshal !!str `a`"},
		"a key twice":             {"name: a\nname: b\n", "already defined"},
		"what is no YAML":         {"name: [a\n", "line 1"},
		"more than one document":  {"name: a\n---\nname: b\n", "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(row.text), new(settings))
			if err == nil || !strings.Contains(err.Error(), row.says) || strings.ContainsAny(err.Error(), "\n{") || strings.Contains(err.Error(), "strictyaml") {
				t.Errorf("got %q; want one line that says %q", err, row.says)
			}
		})
	}
	if err := Decode([]byte("name: a\n---\nname: b\n"), new(settings)); !errors.Is(err, ErrMore) {
		t.Errorf("more than one document is %v", err)
	}
}

func TestOneDocumentIsRead(t *testing.T) {
	var is settings
	if err := Decode([]byte("# a comment\nname: a\nlists: [b, c]\n"), &is); err != nil || is.Name != "a" || len(is.Lists) != 2 {
		t.Errorf("%+v, %v", is, err)
	}
	if err := Decode(nil, &is); err != nil || is.Name != "a" {
		t.Errorf("an empty text: %+v, %v", is, err)
	}
}
