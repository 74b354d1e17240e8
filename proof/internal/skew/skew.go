// Package skew is the lab for what happens while two versions of this product run side by side, as they do in every
// rollout: it builds the servers and a client from a commit that somebody relies on (old) and from the working tree
// (new), lets each client speak to each server, puts each server on the data that the other wrote, and counts what goes
// wrong. A break that is made on purpose in a scratch tree shows that it would be seen.
package skew

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/skew/corpus"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// Options say what is held against what.
type Options struct {
	// Root is the working tree: the new version.
	Root string
	// Baseline is the commit of the old version; "" means what Baseline finds.
	Baseline string
	// Detail gets what stands behind the figures, each failure among it.
	Detail io.Writer
}

// lab is one run.
type lab struct {
	out      *figure.Detail
	dir      string // for everything that the run makes
	old, new *version
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	root, err := filepath.Abs(opts.Root)
	if err != nil {
		return nil, err
	}
	l := &lab{out: figure.NewDetail(opts.Detail)}
	if l.dir, err = os.MkdirTemp("", "concordat-skew-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.dir)) }()
	commit, how, err := Baseline(ctx, root, opts.Baseline)
	if err != nil {
		return nil, fmt.Errorf("find the baseline: %w", err)
	}
	l.out.Line("old is %s: %s\nnew is the working tree", commit, how)
	l.new = &version{name: "new", tree: root}
	l.old = &version{name: "old", tree: filepath.Join(l.dir, "old")}
	remove, err := checkout(ctx, root, commit, l.old.tree)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, v := range []*version{l.old, l.new} {
		if err := v.build(ctx, root, l.dir); err != nil {
			return nil, err
		}
	}
	rewritten, err := corpus.Rewritten(filepath.Join(l.old.tree, corpusDir), filepath.Join(root, corpusDir))
	if err != nil {
		return nil, err
	}
	for _, name := range rewritten {
		l.out.Line("the frozen message %s is another one, or gone", name)
	}
	figures = append(figures, count("skew.corpus_rewritten", len(rewritten)))
	for _, part := range []func(context.Context) ([]figure.Figure, error){l.calls, l.logs, l.edges, l.control} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// count is a figure that is counted, not measured.
func count(name string, n int) figure.Figure {
	return figure.Figure{Name: name, Value: float64(n), Runs: 1}
}

// pairing is a client of one version at a server of another, and what came of it.
type pairing struct {
	client, server *version
	calls          []transcript.Call
	failures       []failure
}

func (p *pairing) String() string { return p.client.name + " client, " + p.server.name + " server" }

// failure is what went wrong with a call.
type failure struct {
	kind, method, step, what string
}

// converse lets a client make all of its calls to a server with no data.
func (l *lab) converse(ctx context.Context, p *pairing) (err error) {
	dir, err := os.MkdirTemp(l.dir, "calls-")
	if err != nil {
		return err
	}
	s, err := start(ctx, p.server.server, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	h, err := ask(ctx, p.client.probe, transcript.Request{Do: transcript.Calls, At: s.at, Seed: "skew"})
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	p.calls = h.calls
	return nil
}

// calls has every client call every server.
func (l *lab) calls(ctx context.Context) ([]figure.Figure, error) {
	all := []*pairing{
		{client: l.old, server: l.old}, {client: l.new, server: l.new}, // the controls
		{client: l.old, server: l.new}, {client: l.new, server: l.old},
	}
	for _, p := range all {
		if err := l.converse(ctx, p); err != nil {
			return nil, err
		}
	}
	oldOld, newNew, oldNew, newOld := all[0], all[1], all[2], all[3]
	for _, p := range all {
		p.judge(l.out)
	}
	compared := oldNew.misread(newNew) + newOld.misread(oldOld)
	oldNew.lost(oldOld)
	l.report(all)
	l.changes(oldNew, oldOld)
	figures := []figure.Figure{
		count("skew.old_client_new_server_failures", len(oldNew.failures)),
		count("skew.new_client_old_server_failures", len(newOld.failures)),
		count("skew.same_version_failures", len(oldOld.failures)+len(newNew.failures)),
	}
	kinds := map[string]bool{}
	for _, c := range oldNew.both(newNew) {
		kinds[c[0].Kind] = true
	}
	return append(figures, count("skew.calls_compared", compared), count("skew.kinds_of_call", len(kinds))), nil
}

// judge counts the calls that the client itself found wrong. A method that the server's version does not have is none
// that could go well: the review of the contract judges that.
func (p *pairing) judge(out *figure.Detail) {
	p.calls = slices.DeleteFunc(p.calls, func(c transcript.Call) bool {
		without := !p.server.words.Serves(c.Method)
		if without {
			out.Line("left out, %s: the server has no %s (%s, %s)", p, c.Method, c.Kind, c.Step)
		}
		return without
	})
	for _, c := range p.calls {
		if c.Problem != "" {
			p.fail(c, c.Problem)
		}
	}
}

func (p *pairing) fail(c transcript.Call, what string) {
	p.failures = append(p.failures, failure{c.Kind, c.Method, c.Step, what})
}

// both returns the calls that went well here and in another conversation: this one's first. A step that only one client
// makes is left out; one that went wrong is told by judge.
func (p *pairing) both(other *pairing) (pairs [][2]transcript.Call) {
	theirs := make(map[string]transcript.Call, len(other.calls))
	for key, c := range other.steps() {
		theirs[key] = c
	}
	for key, c := range p.steps() {
		if o, ok := theirs[key]; ok && c.Problem == "" && o.Problem == "" {
			pairs = append(pairs, [2]transcript.Call{c, o})
		}
	}
	return pairs
}

// steps yields the calls, each with what it is for. What comes again is another step.
func (p *pairing) steps() iter.Seq2[string, transcript.Call] {
	return func(yield func(string, transcript.Call) bool) {
		times := map[string]int{}
		for _, c := range p.calls {
			key := c.Method + "\n" + c.Step
			times[key]++
			if !yield(fmt.Sprint(key, times[key]), c) {
				return
			}
		}
	}
}

// misread holds what this client saw against what the server's own client saw, call by call, and returns how many calls
// that were.
func (p *pairing) misread(own *pairing) int {
	pairs := p.both(own)
	for _, c := range pairs {
		for _, what := range transcript.Misread(p.client.words, c[0].Saw, c[1].Saw, nil) {
			p.fail(c[0], what)
		}
	}
	return len(pairs)
}

// lost holds what this client saw against what it saw of the server of its own version.
func (p *pairing) lost(before *pairing) {
	for _, c := range p.both(before) {
		for _, what := range transcript.Lost(p.server.words, c[0].Saw, c[1].Saw) {
			p.fail(c[0], what)
		}
	}
}

// report prints how many calls of each kind were made, and each failure.
func (l *lab) report(all []*pairing) {
	kinds := map[string]bool{}
	for _, p := range all {
		for _, c := range p.calls {
			kinds[c.Kind] = true
		}
	}
	names := slices.Sorted(maps.Keys(kinds))
	rows := [][]string{append(append([]string{""}, names...), "methods", "failures")}
	for _, p := range all {
		row, methods := []string{p.String()}, map[string]bool{}
		for _, kind := range names {
			n := 0
			for _, c := range p.calls {
				if c.Kind == kind {
					n++
				}
				methods[c.Method] = true
			}
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, append(row, fmt.Sprint(len(methods)), fmt.Sprint(len(p.failures))))
	}
	l.out.Table("calls", rows)
	for _, p := range all {
		for _, f := range p.failures {
			l.out.Line("FAILED %s: %s %s, %s: %s", p, f.kind, f.method, f.step, f.what)
		}
	}
}

// changes prints what the new server answers otherwise than the old one. It may be meant, so nothing counts it.
func (l *lab) changes(now, before *pairing) {
	for _, c := range now.both(before) {
		for _, what := range transcript.Changed(c[0].Saw, c[1].Saw) {
			l.out.Line("differs, which may be meant: %s, %s: %s", c[0].Method, c[0].Step, what)
		}
	}
}
