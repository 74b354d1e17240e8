package skew

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/concordat-dev/concordat/proof/internal/skew/corpus"
)

// missing asks Freeze for an entry of each message that has none.
const missing = "missing"

// Freeze adds to the frozen messages of the working tree at root: the message of that full name whose JSON is in, under
// a name; or, where message is "missing", one of each message that has none. It never rewrites one.
func Freeze(root, message, name string, in io.Reader, out io.Writer) error {
	dir := filepath.Join(root, corpusDir)
	if message == missing {
		added, err := corpus.AddMissing(dir)
		for _, e := range added {
			fmt.Fprintln(out, e)
		}
		return err
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	e, err := corpus.AddText(dir, message, name, text)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%x\n", e, e.Wire)
	return nil
}
