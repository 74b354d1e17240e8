// Package figure holds what the harnesses measure against what was promised, and prints it.
package figure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Goal is what a figure is held to.
type Goal struct {
	// Is is how the figure compares with the bound: "<=" or ">=".
	Is    string  `yaml:"is"`
	Bound float64 `yaml:"bound"`
	Unit  string  `yaml:"unit"`
	// What says what is measured.
	What string `yaml:"what"`
}

// Goals are all goals, by the name of the figure.
type Goals map[string]Goal

// ParseGoals reads goals.yaml. It refuses a line that says less than all, or what it does not know.
func ParseGoals(text []byte) (Goals, error) {
	var goals Goals
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&goals); err != nil {
		return nil, fmt.Errorf("read goals: %w", err)
	}
	for name, g := range goals {
		if (g.Is != "<=" && g.Is != ">=") || g.Unit == "" || g.What == "" {
			return nil, fmt.Errorf("goal %s: is must be \"<=\" or \">=\", and unit and what are required", name)
		}
	}
	return goals, nil
}

// Figure is what was measured: the median of some runs.
type Figure struct {
	Name  string
	Value float64
	Runs  int
}

// met reports whether a value is what it should be. What is no number is not.
func (g Goal) met(value float64) bool {
	switch {
	case math.IsInf(value, 0) || math.IsNaN(value):
		return false
	case g.Is == ">=":
		return value >= g.Bound
	}
	return value <= g.Bound
}

// Missed returns the names of the figures that miss their goals.
func Missed(goals Goals, figures []Figure) []string {
	var names []string
	for _, f := range figures {
		if !goals[f.Name].met(f.Value) {
			names = append(names, f.Name)
		}
	}
	return names
}

// Median returns the figure of that name over values, which must not be empty.
func Median(name string, values []float64) Figure {
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	value := sorted[mid]
	if len(sorted)%2 == 0 {
		value = (sorted[mid-1] + sorted[mid]) / 2
	}
	return Figure{Name: name, Value: value, Runs: len(values)}
}

// line is a figure as it is printed.
type line struct {
	Figure  string   `json:"figure"`
	Value   *float64 `json:"value"` // null for what is no number, such as a ratio to nothing
	Unit    string   `json:"unit"`
	Goal    string   `json:"goal"`
	OK      bool     `json:"ok"`
	Runs    int      `json:"runs"`
	Command string   `json:"command"`
}

// Print writes the figures, as a table or as one JSON object a line. It returns an error for a figure without a goal and
// for a goal of the area (the part of the name before the dot) that has no figure: nothing is left out.
func Print(w io.Writer, goals Goals, area string, figures []Figure, command string, asJSON bool) error {
	have := map[string]bool{}
	var lines []line
	for _, f := range figures {
		g, ok := goals[f.Name]
		if !ok {
			return fmt.Errorf("figure %s has no goal in proof/goals.yaml", f.Name)
		}
		have[f.Name] = true
		value, met := &f.Value, g.met(f.Value)
		if math.IsInf(f.Value, 0) || math.IsNaN(f.Value) {
			value = nil
		}
		lines = append(lines, line{f.Name, value, g.Unit, fmt.Sprintf("%s %g", g.Is, g.Bound), met, f.Runs, command})
	}
	for name := range goals {
		if len(name) > len(area) && name[:len(area)+1] == area+"." && !have[name] {
			return fmt.Errorf("goal %s has no figure", name)
		}
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, l := range lines {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "figure\tvalue\tunit\tgoal\t\truns\twhat")
	for _, l := range lines {
		verdict := "ok"
		if !l.OK {
			verdict = "MISSED"
		}
		value := "none"
		if l.Value != nil {
			value = fmt.Sprintf("%.4g", *l.Value)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Figure, value, l.Unit, l.Goal, verdict, l.Runs, goals[l.Figure].What)
	}
	return tw.Flush()
}
