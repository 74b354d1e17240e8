// Command concordat-rules is the plugin by which buf checks what is this repository's own: the rules over one contract of tools/rules, and those over two of tools/review/rules.
// buf starts it, because buf.yaml names it:
//
//	plugins:
//	  - plugin: [go, tool, concordat-rules]
//
// `go tool buf config ls-lint-rules` lists its rules beside those of buf.
package main

import (
	"time"

	"buf.build/go/bufplugin/check"

	breaking "github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/rules"
)

func main() {
	check.Main(spec())
}

// spec returns the plugin.
func spec() *check.Spec {
	return rules.Spec(breaking.Specs(rules.Category, time.Now)...)
}
