package skew

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// logs puts the servers on each other's data. The tokens that a client got of one are resumed at the other: from old to
// new, which is the upgrade, back to old, and to new again. Where the new version has migrations that the old one
// lacks, the old server must refuse the data and leave it as it is.
func (l *lab) logs(ctx context.Context) (figures []figure.Figure, err error) {
	dir, err := os.MkdirTemp(l.dir, "log-")
	if err != nil {
		return nil, err
	}
	h := &history{lab: l, dir: dir, clients: []*version{l.old, l.new}, events: map[string][]written{}}
	if err := h.turn(ctx, l.old, "one"); err != nil {
		return nil, err
	}
	if err := h.turn(ctx, l.new, "two"); err != nil {
		return nil, err
	}
	if ahead := l.new.migrates(l.old); len(ahead) > 0 {
		l.out.Line("the old server must refuse the data: %s", strings.Join(ahead, ", "))
		if err := h.refused(ctx, l.old); err != nil {
			return nil, err
		}
	} else if err := h.turn(ctx, l.old, "three"); err != nil {
		return nil, err
	}
	if err := h.turn(ctx, l.new, "four"); err != nil {
		return nil, err
	}
	rows := [][]string{{"log", "events"}}
	for _, stream := range slices.Sorted(maps.Keys(h.events)) {
		rows = append(rows, []string{stream, fmt.Sprint(len(h.events[stream]))})
	}
	l.out.Table(fmt.Sprintf("event logs, %d resumptions", h.resumed), rows)
	for _, w := range h.wrong {
		l.out.Line("FAILED %s", w)
	}
	return []figure.Figure{count("skew.log_failures", len(h.wrong)), count("skew.log_resumptions", h.resumed)}, nil
}

// history is data that several servers write, one after the other.
type history struct {
	*lab
	dir     string
	clients []*version
	start   map[string]string    // the tokens before the first event
	events  map[string][]written // by stream
	resumed int
	wrong   []string
}

// written is an event as a client of the version of the server that wrote it has seen it at that server.
type written struct {
	by    *version
	token string // to resume after it, as that server gave it out
	saw   []transcript.Entry
}

// turn has a server of a version go on with the data. Clients of both versions first resume what was written before,
// each from the middle of what each server before wrote; then a client writes, and both read it.
func (h *history) turn(ctx context.Context, v *version, seed string) (err error) {
	s, err := start(ctx, v.server, h.dir)
	if err != nil {
		if !errors.Is(err, errRefused) {
			return err
		}
		h.wrong = append(h.wrong, fmt.Sprintf("the %s server does not take data that needs no other migrations: %v", v.name, err))
		return nil
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if h.start == nil {
		m, err := ask(ctx, v.probe, transcript.Request{Do: transcript.Mark, At: s.at, Seed: seed})
		if err != nil {
			return fmt.Errorf("tokens of the %s server: %w", v.name, err)
		}
		h.start = m.tokens
	}
	w, err := ask(ctx, v.probe, transcript.Request{Do: transcript.Write, At: s.at, Seed: seed})
	if err != nil {
		h.wrong = append(h.wrong, fmt.Sprintf("the %s server writes no more: %v", v.name, err))
		return nil
	}
	if err := h.record(ctx, v, s, w.until); err != nil {
		h.wrong = append(h.wrong, err.Error())
		return nil
	}
	for _, client := range h.clients {
		for _, from := range h.places() {
			h.resume(ctx, client, v, s, from, w.until)
		}
	}
	return nil
}

// record adds what a server has just written, as its own client reads it.
func (h *history) record(ctx context.Context, v *version, s *server, until map[string]string) error {
	tokens := maps.Clone(h.start)
	for stream, all := range h.events {
		if len(all) > 0 {
			tokens[stream] = all[len(all)-1].token
		}
	}
	got, err := ask(ctx, v.probe, transcript.Request{Do: transcript.Follow, At: s.at, Tokens: tokens, Until: until})
	if err != nil {
		return fmt.Errorf("what the %s server wrote cannot be followed from the newest token: %w", v.name, err)
	}
	h.resumed += len(until)
	for stream, events := range got.events {
		for _, e := range events {
			h.events[stream] = append(h.events[stream], written{v, e.Token, e.Saw})
		}
	}
	return nil
}

// place is an index into the events of each stream, to resume after.
type place map[string]int

// places returns where to resume: in the middle of each run of events that one server wrote, so that at least one comes
// after it.
func (h *history) places() []place {
	var all []place
	for stream, events := range h.events {
		n := 0
		for from := 0; from < len(events); {
			to := from
			for to < len(events) && events[to].by == events[from].by {
				to++
			}
			if n == len(all) {
				all = append(all, place{})
			}
			all[n][stream] = (from + to - 1) / 2
			from, n = to, n+1
		}
	}
	return all
}

// resume has a client follow the logs from a place, and holds what it sees against what was written.
func (h *history) resume(ctx context.Context, client, at *version, s *server, from place, until map[string]string) {
	tokens, by := map[string]string{}, ""
	for stream, i := range from {
		tokens[stream], by = h.events[stream][i].token, h.events[stream][i].by.name
	}
	who := fmt.Sprintf("%s client at the %s server, with a token of the %s one", client.name, at.name, by)
	got, err := ask(ctx, client.probe, transcript.Request{Do: transcript.Follow, At: s.at, Tokens: tokens, Until: until})
	if err != nil {
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %v", who, err))
		return
	}
	for stream, i := range from {
		h.resumed++
		h.compare(who+", "+stream, client, got.events[stream], h.events[stream][i+1:])
	}
}

// compare holds what a client has seen against what was written, event by event.
func (h *history) compare(who string, client *version, got []transcript.Event, want []written) {
	if len(got) != len(want) {
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %d events, not %d", who, len(got), len(want)))
		return
	}
	for i, w := range want {
		for _, what := range transcript.Misread(client.words, got[i].Saw, w.saw, w.by.words) {
			h.wrong = append(h.wrong, fmt.Sprintf("%s: event %d of %d, which the %s server wrote: %s", who, i+1, len(want), w.by.name, what))
		}
	}
}

// newerSchema is how a server says that the data is of a newer one.
const newerSchema = "newer than this program"

// refused has a server start on data that it must not touch.
func (h *history) refused(ctx context.Context, v *version) error {
	s, err := start(ctx, v.server, h.dir)
	switch {
	case err == nil:
		h.wrong = append(h.wrong, fmt.Sprintf("the %s server takes data that newer migrations have changed", v.name))
		return s.stop()
	case !errors.Is(err, errRefused):
		return err
	case !strings.Contains(err.Error(), newerSchema):
		h.wrong = append(h.wrong, fmt.Sprintf("the %s server refuses the data without saying that it is newer: %v", v.name, err))
	default:
		h.out.Line("and does, by design: it says that the database is %s", newerSchema)
	}
	return nil
}
