package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// What follows is the part of Grafana's dashboard model that is used, with its names.

type dashboard struct {
	UID           string         `json:"uid"`
	Title         string         `json:"title"`
	Description   string         `json:"description"`
	Tags          []string       `json:"tags"`
	SchemaVersion int            `json:"schemaVersion"`
	Version       int            `json:"version"`
	Editable      bool           `json:"editable"`
	GraphTooltip  int            `json:"graphTooltip"` // 1: one crosshair for all panels
	Refresh       string         `json:"refresh"`
	Time          map[string]any `json:"time"`
	Templating    templating     `json:"templating"`
	Panels        []*panel       `json:"panels"`
}

type templating struct {
	List []variable `json:"list"`
}

type variable struct {
	Name       string         `json:"name"`
	Label      string         `json:"label"`
	Type       string         `json:"type"`
	Query      string         `json:"query"`
	Datasource *datasource    `json:"datasource,omitempty"`
	Refresh    int            `json:"refresh,omitempty"` // 2: when the time range changes
	Multi      bool           `json:"multi,omitempty"`
	IncludeAll bool           `json:"includeAll,omitempty"`
	AllValue   string         `json:"allValue,omitempty"`
	Current    map[string]any `json:"current,omitempty"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int          `json:"id"`
	Type        string       `json:"type"`
	Title       string       `json:"title"`
	Description string       `json:"description,omitempty"`
	GridPos     gridPos      `json:"gridPos"`
	Datasource  *datasource  `json:"datasource,omitempty"`
	Targets     []target     `json:"targets,omitempty"`
	FieldConfig *fieldConfig `json:"fieldConfig,omitempty"`
	Options     any          `json:"options,omitempty"`
	Collapsed   bool         `json:"collapsed,omitempty"` // of a row
	Panels      []*panel     `json:"panels,omitempty"`    // in a collapsed row
}

type gridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type target struct {
	RefID        string `json:"refId"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
}

type fieldConfig struct {
	Defaults  defaults `json:"defaults"`
	Overrides []any    `json:"overrides"`
}

type defaults struct {
	Unit       string         `json:"unit"`
	Min        *float64       `json:"min,omitempty"`
	Thresholds *thresholds    `json:"thresholds,omitempty"`
	Custom     map[string]any `json:"custom,omitempty"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"` // nil: from the bottom
}

const (
	width      = 24 // of the grid
	statHeight = 4
	height     = 8
)

func prometheus() *datasource { return &datasource{Type: "prometheus", UID: "${datasource}"} }

// A layout places panels from left to right and from top to bottom and numbers them.
type layout struct {
	id, x, y, rowHeight int
}

func (l *layout) place(p *panel, w, h int) *panel {
	if l.x+w > width {
		l.newLine()
	}
	l.id++
	p.ID, p.GridPos = l.id, gridPos{H: h, W: w, X: l.x, Y: l.y}
	l.x, l.rowHeight = l.x+w, max(l.rowHeight, h)
	return p
}

func (l *layout) newLine() { l.x, l.y, l.rowHeight = 0, l.y+l.rowHeight, 0 }

func (l *layout) row(title string, collapsed bool) *panel {
	l.newLine()
	r := l.place(&panel{Type: "row", Title: title, Collapsed: collapsed}, width, 1)
	l.newLine()
	return r
}

// query is an expression and what its series are called.
type query struct{ expr, legend string }

func targets(queries []query) []target {
	list := make([]target, len(queries))
	for i, q := range queries {
		list[i] = target{RefID: string(rune('A' + i)), Expr: q.expr, LegendFormat: q.legend}
	}
	return list
}

func graph(title, description, unit string, queries ...query) *panel {
	zero := 0.0
	return &panel{
		Type: "timeseries", Title: title, Description: description, Datasource: prometheus(), Targets: targets(queries),
		FieldConfig: &fieldConfig{
			Defaults:  defaults{Unit: unit, Min: &zero, Custom: map[string]any{"fillOpacity": 10, "showPoints": "never"}},
			Overrides: []any{},
		},
		Options: map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		},
	}
}

func stat(title, description, unit string, steps []step, q query) *panel {
	return &panel{
		Type: "stat", Title: title, Description: description, Datasource: prometheus(), Targets: targets([]query{q}),
		FieldConfig: &fieldConfig{
			Defaults:  defaults{Unit: unit, Thresholds: &thresholds{Mode: "absolute", Steps: steps}},
			Overrides: []any{},
		},
		Options: map[string]any{
			"colorMode": "value", "graphMode": "area",
			"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		},
	}
}

// from returns steps of colours: the first from the bottom, each further one from its value.
func from(first string, more ...any) []step {
	steps := []step{{Color: first}}
	for i := 0; i+1 < len(more); i += 2 {
		value := more[i].(float64)
		steps = append(steps, step{Color: more[i+1].(string), Value: &value})
	}
	return steps
}

func renderDashboard(services []service) ([]byte, error) {
	l := &layout{}
	d := dashboard{
		UID: "concordat", Title: "Concordat", Tags: []string{"concordat", "grpc"},
		Description:   "Generated by tools/cmd/dashboards from the contract: change that, not this.",
		SchemaVersion: 39, Version: 1, GraphTooltip: 1, Refresh: "30s",
		Time: map[string]any{"from": "now-1h", "to": "now"},
		Templating: templating{[]variable{
			{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"},
			{
				Name: "service", Label: "Service", Type: "query", Query: "label_values(" + startedCalls + ", service)", Datasource: prometheus(),
				Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*", Current: map[string]any{"text": "All", "value": "$__all"},
			},
		}},
	}
	d.Panels = append(d.Panels, overview(l)...)
	d.Panels = append(d.Panels, saturation(l)...)
	d.Panels = append(d.Panels, data(l)...)
	d.Panels = append(d.Panels, between(l)...)
	for _, s := range services {
		d.Panels = append(d.Panels, methodRow(l, s))
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(d)
	return out.Bytes(), err
}

const chosen = `service=~"$service"`

// overview is what one looks at first: is it up, is it right, is it fast, and for how long will it stay so.
func overview(l *layout) []*panel {
	calls := fmt.Sprintf("%s{%s, %s}", handledCalls, chosen, ours)
	unary := fmt.Sprintf(`%s{%s, %s, grpc_type="unary"}`, callSeconds, chosen, ours)
	const statWidth, half = 4, 12
	return []*panel{
		l.row("Overview", false),
		l.place(stat("Not ready", "Parts whose checks fail.", "none", from("green", 1.0, "red"),
			query{fmt.Sprintf("count(%s{%s} == 0) or vector(0)", ready, chosen), ""}), statWidth, statHeight),
		l.place(stat("Rate", "Calls that ended, a second.", "reqps", from("blue"),
			query{fmt.Sprintf("sum(rate(%s[$__rate_interval]))", calls), ""}), statWidth, statHeight),
		l.place(stat("Errors", "The share of calls that failed for a reason of ours, of the worst part.", "percentunit", from("green", 0.001, "orange", 0.0144, "red"),
			query{fmt.Sprintf("max(%s5m{%s})", errorRatio, chosen), ""}), statWidth, statHeight),
		l.place(stat("p99", "99 of 100 calls that are no streams took less.", "s", from("blue"),
			query{fmt.Sprintf("histogram_quantile(0.99, sum by (le) (rate(%s[$__rate_interval])))", unary), ""}), statWidth, statHeight),
		l.place(stat("In flight", "Calls under way, streams included.", "none", from("blue"),
			query{fmt.Sprintf("sum(%s{%s})", underWay, chosen), ""}), statWidth, statHeight),
		l.place(stat("Certificate", "How long the certificate that ends first is still good.", "s", from("red", 900.0, "orange", 3600.0, "green"),
			query{fmt.Sprintf("min(%s{%s}) - time()", certNotAfter, chosen), ""}), statWidth, statHeight),
		l.place(graph("Rate", "Calls that ended, by part.", "reqps",
			query{fmt.Sprintf("sum by (service) (rate(%s[$__rate_interval]))", calls), "{{service}}"}), half, height),
		l.place(graph("Errors", "The share of calls that failed for a reason of ours, and what a month allows.", "percentunit",
			query{fmt.Sprintf("%s5m{%s}", errorRatio, chosen), "{{service}}"}, query{"vector(" + objective + ")", "objective"}), half, height),
		l.place(graph("Duration", "Of calls that are no streams.", "s",
			query{fmt.Sprintf("histogram_quantile(0.5, sum by (service, le) (rate(%s[$__rate_interval])))", unary), "{{service}} p50"},
			query{fmt.Sprintf("histogram_quantile(0.99, sum by (service, le) (rate(%s[$__rate_interval])))", unary), "{{service}} p99"}), half, height),
		l.place(graph("Refusals", "Calls that ended other than with OK, by the reason.", "reqps",
			query{fmt.Sprintf(`sum by (service, reason) (rate(%s{%s, %s}[$__rate_interval]))`, callFaults, chosen, ours), "{{service}} {{reason}}"}), half, height),
	}
}

// saturation is how full things are.
func saturation(l *layout) []*panel {
	const third = 8
	of := func(name string) string { return fmt.Sprintf("%s{%s}", name, jobs) }
	return []*panel{
		l.row("Saturation", false),
		l.place(graph("In flight", "Calls under way, streams included.", "none",
			query{fmt.Sprintf("sum by (service) (%s{%s})", underWay, chosen), "{{service}}"}), third, height),
		l.place(graph("Turned away", "Calls that were refused because there are too many.", "reqps",
			query{fmt.Sprintf(`sum by (service, reason) (rate(%s{%s, reason=~"%s"}[$__rate_interval]))`, callFaults, chosen, tooMany), "{{service}} {{reason}}"}), third, height),
		l.place(graph("Processors", "Processors in use.", "none",
			query{fmt.Sprintf("rate(%s[$__rate_interval])", of(cpuSeconds)), "{{job}} {{instance}}"}), third, height),
		l.place(graph("Memory", "", "bytes", query{of(memoryBytes), "{{job}} {{instance}}"}), third, height),
		l.place(graph("Goroutines", "", "none", query{of(goroutines), "{{job}} {{instance}}"}), third, height),
		l.place(graph("File descriptors", "The share that is in use.", "percentunit",
			query{fmt.Sprintf("%s / %s", of(openFiles), of(maxFiles)), "{{job}} {{instance}}"}), third, height),
		l.place(graph("Certificates", "How long they are still good.", "s",
			query{fmt.Sprintf("%s{%s} - time()", certNotAfter, chosen), "{{service}} {{instance}}"}), third, height),
		l.place(graph("Refused connections", "Before a call could come over them, by the reason; and calls that the transport refused before they began.", "cps",
			query{fmt.Sprintf("sum by (service, reason) (rate(%s{%s}[$__rate_interval]))", connRefused, chosen), "{{service}} {{reason}}"},
			query{fmt.Sprintf("sum by (service) (rate(%s{%s}[$__rate_interval]))", callsRefused, chosen), "{{service}} calls"}), third, height),
	}
}

// data is how far the event logs are behind, and how busy the databases are.
func data(l *layout) []*panel {
	const third = 8
	of := func(name string) string { return fmt.Sprintf("%s{%s}", name, chosen) }
	rate := func(name string) string { return fmt.Sprintf("rate(%s[$__rate_interval])", of(name)) }
	return []*panel{
		l.row("Data", false),
		l.place(graph("Event log: behind", "How long ago the oldest event happened that is committed and that subscribers have not been given.", "s",
			query{of(logBehind), "{{service}} {{instance}}"}), third, height),
		l.place(graph("Event log: lag", "How many events those are.", "none", query{of(logLag), "{{service}} {{instance}}"}), third, height),
		l.place(graph("Event log: subscribers", "And how many a second are cut because they do not keep up.", "none",
			query{"sum by (service) (" + of(subscribers) + ")", "{{service}}"},
			query{"sum by (service) (" + rate(subsCut) + ")", "{{service}} cut"}), third, height),
		l.place(graph("Database: connections", "The share of each pool that is in use.", "percentunit",
			query{of(dbInUse) + " / " + of(dbMax), "{{db_name}} {{pool}} {{instance}}"}), third, height),
		l.place(graph("Database: waiting", "How long one waits for a connection, or for the turn to write.", "s",
			query{rate(dbWaited) + " / " + rate(dbWaits), "{{db_name}} {{pool}} {{instance}}"}), third, height),
		l.place(graph("Database: writers", "Writes that wait for their turn.", "none", query{of(dbQueue), "{{db_name}} {{instance}}"}), third, height),
	}
}

// between is what goes through the edge and between the services.
func between(l *layout) []*panel {
	const half = 12
	return []*panel{
		l.row("Edge, and calls between services", false),
		l.place(graph("Protocols", "Calls through the edge, by what the caller speaks.", "reqps",
			query{fmt.Sprintf("sum by (protocol) (rate(%s{%s}[$__rate_interval]))", edgeCalls, ours), "{{protocol}}"}), half, height),
		l.place(graph("Requests that became no call", "By what the caller speaks and HTTP status; page is a document of the edge.", "reqps",
			query{"sum by (protocol, status) (rate(" + edgeRequests + "[$__rate_interval]))", "{{protocol}} {{status}}"}), half, height),
		l.place(graph("Calls made: errors", "The share of calls to others that failed for a reason of theirs, by who calls and who is called.", "percentunit",
			query{fmt.Sprintf(`sum by (service, grpc_service) (rate(%[1]s{%[2]s, grpc_code=~"%[3]s"}[$__rate_interval])) / sum by (service, grpc_service) (rate(%[1]s{%[2]s}[$__rate_interval]))`,
				callsMade, chosen, streamErrorCodes+"|Unavailable"), "{{service}} to {{grpc_service}}"}), half, height),
		l.place(graph("Calls made: p99", "Of calls that are no streams, repetitions included.", "s",
			query{fmt.Sprintf(`histogram_quantile(0.99, sum by (service, grpc_service, le) (rate(%s{%s, grpc_type="unary"}[$__rate_interval])))`, madeSeconds, chosen),
				"{{service}} to {{grpc_service}}"}), half, height),
	}
}

// methodRow has rate, errors and duration of every method of a service, as the service itself sees them.
func methodRow(l *layout, s service) *panel {
	row := l.row(s.name, true)
	const third = 8
	for _, m := range s.methods {
		labels := fmt.Sprintf(`service="%s", grpc_service="%s", grpc_method="%s"`, s.server, s.name, m.name)
		codes := errorCodes
		if m.streams {
			codes = streamErrorCodes
		}
		rate := func(selector string) string {
			return fmt.Sprintf("sum(rate(%s{%s%s}[$__rate_interval]))", handledCalls, labels, selector)
		}
		row.Panels = append(row.Panels,
			l.place(graph(m.name+": rate", "By code.", "reqps",
				query{fmt.Sprintf("sum by (grpc_code) (rate(%s{%s}[$__rate_interval]))", handledCalls, labels), "{{grpc_code}}"}), third, height),
			l.place(graph(m.name+": errors", "The share of calls that ended "+strings.ReplaceAll(codes, "|", ", ")+".", "percentunit",
				query{fmt.Sprintf("(%s or vector(0)) / %s", rate(fmt.Sprintf(`, grpc_code=~"%s"`, codes)), rate("")), "errors"}), third, height),
			l.place(duration(m, labels), third, height))
	}
	l.newLine()
	return row
}

// duration shows how long calls take against their timeout, and of streams, which have no duration worth the name, how
// many messages they carry.
func duration(m method, labels string) *panel {
	if m.streams {
		perSecond := func(name string) string { return fmt.Sprintf("sum(rate(%s{%s}[$__rate_interval]))", name, labels) }
		return graph(m.name+": messages", "And how many streams are open.", "none",
			query{perSecond(messagesIn), "received a second"}, query{perSecond(messagesOut), "sent a second"},
			query{fmt.Sprintf("sum(%s{%s}) - sum(%s{%s})", startedCalls, labels, handledCalls, labels), "open"})
	}
	quantile := func(q string) query {
		return query{fmt.Sprintf("histogram_quantile(%s, sum by (le) (rate(%s{%s}[$__rate_interval])))", q, callSeconds, labels), "p" + strings.TrimPrefix(q, "0.")}
	}
	return graph(m.name+": duration", fmt.Sprintf("The timeout of its policy is %s.", m.timeout), "s",
		quantile("0.50"), quantile("0.95"), quantile("0.99"))
}
