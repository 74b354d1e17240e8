package archtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// load returns the graph of every package of every module that root/go.work uses. It fails where
// the go command cannot resolve an import of any of them.
func load(ctx context.Context, root string) (graph, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports,Standard", "work")
	cmd.Dir = root
	// The rules are about the workspace, also where the caller builds one module alone.
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(root, "go.work"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go list work: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return decode(&stdout)
}

// decode reads what `go list -json` prints: one object after another.
func decode(r io.Reader) (graph, error) {
	g := graph{}
	for dec := json.NewDecoder(r); ; {
		var listed struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
			Standard                           bool
		}
		err := dec.Decode(&listed)
		if errors.Is(err, io.EOF) {
			return g, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		g[listed.ImportPath] = pkg{
			imports:     listed.Imports,
			testImports: append(listed.TestImports, listed.XTestImports...),
			standard:    listed.Standard,
		}
	}
}
