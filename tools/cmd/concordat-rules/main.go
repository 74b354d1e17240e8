// Command concordat-rules is the plugin by which buf checks what is this repository's own: the rules of tools/rules.
// buf starts it, because buf.yaml names it:
//
//	plugins:
//	  - plugin: [go, tool, concordat-rules]
//
// `go tool buf config ls-lint-rules` lists its rules beside those of buf.
package main

import (
	"buf.build/go/bufplugin/check"

	"github.com/concordat-dev/concordat/tools/rules"
)

func main() {
	// Rules that compare two contracts follow those that look at one, as the argument of Spec.
	check.Main(rules.Spec())
}
