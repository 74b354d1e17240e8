package kit_test

import (
	"io"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
)

// data is what a service has of settings about its data.
type data struct {
	kit.Database `embed:""`
}

func TestTheDatabaseIsASettingThatDoesNotPrint(t *testing.T) {
	parse := func(args ...string) (cfg data, err error) {
		return cfg, settings.Parse(settings.Program{Name: "service", Description: "A test."}, &cfg, args, nil, io.Discard)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"another engine":           {[]string{"--database-url=mysql://u:hush@h/db"}, "--database-url"},
		"a password that is wrong": {[]string{"--database-url=postgres://u:hush%zz@h/db"}, "--database-url"},
		"a parameter":              {[]string{"--database-url=postgres://u:hush@h/db?sslmode=hush"}, "sslmode"},
		"one connection":           {[]string{"--database-connections=1"}, "--database-connections"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args...)
			if err == nil {
				t.Fatal("accepted")
			}
			if text := err.Error(); !strings.Contains(text, test.want) || strings.Contains(text, "hush") {
				t.Errorf("the error is %s", text)
			}
		})
	}
	cfg, err := parse()
	if err != nil || cfg.URL() != "" || cfg.Setting() != "--data" {
		t.Errorf("without settings: %q, %s, %v", string(cfg.URL()), cfg.Setting(), err)
	}
	const url = "postgres://u:hush@h/db?sslmode=require"
	cfg, err = parse("--database-url=" + url)
	if err != nil || string(cfg.URL()) != url || cfg.Setting() != "--database-url" {
		t.Errorf("with a database: %q, %s, %v", string(cfg.URL()), cfg.Setting(), err)
	}
}
