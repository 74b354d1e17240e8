package selftest

import (
	"embed"
	"regexp"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

//go:embed fixture/*.proto
var fixtureFiles embed.FS

// fixtureFolder is where the fixture lies in the module that it is tried in.
const fixtureFolder = "concordatselftest/v1"

// fixtures returns the files that stand for what the contract itself may not have, such as proto2 and extensions. What
// they say with options that the contract does not know is left out.
func fixtures(image *schema.Image) (map[string]string, error) {
	known := map[string]bool{}
	for _, file := range image.Descriptors() {
		known[file.GetName()] = true
	}
	entries, err := fixtureFiles.ReadDir("fixture")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, entry := range entries {
		data, err := fixtureFiles.ReadFile("fixture/" + entry.Name())
		if err != nil {
			return nil, err
		}
		text := string(data)
		if !known["buf/validate/validate.proto"] {
			if entry.Name() == predefined {
				continue // there is nothing in it but rules
			}
			text = withoutRules(without(text, "buf/validate/validate.proto"))
		}
		if !known["google/api/annotations.proto"] {
			text = without(text, "google/api/annotations.proto")
			text = cutOption(text, "(google.api.http)")
		}
		if !known["policy/v1/policy.proto"] {
			text = without(text, "policy/v1/policy.proto")
			text = cutOption(text, "(policy.v1.method)")
		}
		files[fixtureFolder+"/"+entry.Name()] = text
	}
	return files, nil
}

// emptied matches lists of options from which all, or some, were taken out.
var emptied = regexp.MustCompile(`(?s) \[\s*\]|,(\s*\])|(\[\s*),\s*`)

// without takes an import out of a file.
func without(text, imported string) string {
	return strings.Replace(text, "import \""+imported+"\";\n", "", 1)
}

// withoutRules takes the rules of protovalidate out of the lists of options of fields.
func withoutRules(text string) string {
	for {
		at := strings.Index(text, "(buf.validate.field)")
		if at < 0 {
			break
		}
		text = text[:at] + text[valueEnd(text, at):]
	}
	for {
		less := emptied.ReplaceAllString(text, "$1$2")
		if less == text {
			return text
		}
		text = less
	}
}

// valueEnd returns where one option of a list of options ends, without the comma or the bracket that follows.
func valueEnd(text string, at int) int {
	depth := 0
	for ; at < len(text); at++ {
		switch text[at] {
		case '{', '[':
			depth++
		case '}':
			depth--
		case ']', ',':
			if depth == 0 {
				return at
			}
			if text[at] == ']' {
				depth--
			}
		}
	}
	return len(text)
}

// cutOption takes every `option <name> = …;` out of a text.
func cutOption(text, name string) string {
	for {
		at := strings.Index(text, "option "+name)
		if at < 0 {
			return text
		}
		end := statementEnd(text, at)
		text = strings.TrimRight(text[:at], " ") + strings.TrimLeft(text[end:], "\n")
	}
}

// statementEnd returns where the statement that begins at a place ends, with its semicolon.
func statementEnd(text string, at int) int {
	depth := 0
	for ; at < len(text); at++ {
		switch text[at] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ';':
			if depth == 0 {
				return at + 1
			}
		}
	}
	return len(text)
}
