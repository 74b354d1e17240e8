package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/report"
)

// commentFile is the report that `review comment` posts, in the folder of --reports.
const commentFile = "review.md"

// reportFiles are the files of --reports and their formats.
func reportFiles() map[string]string {
	return map[string]string{commentFile: "markdown", "review.html": "html", "review.json": "json", "review.sarif": "sarif"}
}

// handOn leaves behind what later steps of a workflow take up: the reports, and the verdict. Where no verdict was reached
// the comment says so, and no report of an earlier run is left beside it.
func (c *check) handOn(result *review.Report, problem error) error {
	if c.Reports != "" {
		if err := os.MkdirAll(c.Reports, 0o755); err != nil {
			return fmt.Errorf("--reports: %w", err)
		}
		for file, format := range reportFiles() {
			path, to := filepath.Join(c.Reports, file), report.Formats()[format]
			var err error
			switch {
			case problem == nil:
				err = write(path, to, result)
			case file == commentFile:
				err = write(path, func(w io.Writer, _ *review.Report) error { return report.NoVerdict(w, problem.Error()) }, nil)
			default:
				err = os.Remove(path)
				if errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
			}
			if err != nil {
				return fmt.Errorf("--reports: %w", err)
			}
		}
	}
	if c.Outputs == "" {
		return nil
	}
	verdict := "unknown"
	switch {
	case problem != nil:
	case result.Failures() > 0:
		verdict = "failed"
	default:
		verdict = "passed"
	}
	folder := ""
	if c.Reports != "" {
		var err error
		if folder, err = filepath.Abs(c.Reports); err != nil {
			return fmt.Errorf("--outputs: %w", err)
		}
	}
	file, err := os.OpenFile(c.Outputs, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--outputs: %w", err)
	}
	_, err = fmt.Fprintf(file, "verdict=%s\nreport=%s\n", verdict, folder)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("--outputs: %w", err)
	}
	return nil
}

// write writes a report to a file.
func write(path string, format report.Format, result *review.Report) error {
	var text bytes.Buffer
	if err := format(&text, result); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}
