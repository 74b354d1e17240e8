package figure

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Detail prints what stands behind the figures. What cannot be printed is not worth ending a run for.
type Detail struct{ w io.Writer }

// NewDetail returns a Detail that prints to w.
func NewDetail(w io.Writer) *Detail { return &Detail{w} }

// Line prints a line.
func (d *Detail) Line(format string, args ...any) { fmt.Fprintf(d.w, format+"\n", args...) }

// Table prints rows in columns, below a title.
func (d *Detail) Table(title string, rows [][]string) {
	fmt.Fprintf(d.w, "\n%s\n", title)
	tw := tabwriter.NewWriter(d.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}
