package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/histogram"
	"github.com/concordat-dev/concordat/proof/internal/load"
)

// streamTimeout is what the calls of streams say that they will wait; it does not come up.
const streamTimeout = 5 * time.Minute

// stream measures how many messages a second one stream carries, whose message is encoded once.
func (r *run) stream(ctx context.Context) (figures []figure.Figure, err error) {
	rates := map[string][]float64{}
	servers := map[string]*process{}
	for _, variant := range []string{path, bare} {
		p, err := r.lab.start(ctx, variant, r.tracing...)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
		servers[variant] = p
	}
	request := &load.Request{Method: streamUsers, Timeout: streamTimeout}
	for range r.rounds {
		for _, variant := range []string{path, bare} {
			p := servers[variant]
			conns, closeAll, err := p.dial(ctx, r.asService, 1)
			if err != nil {
				return nil, err
			}
			rate, err := load.Messages(conns[0], request, r.warm, r.during)
			closeAll()
			if err != nil {
				return nil, fmt.Errorf("%s: one stream: %w", variant, err)
			}
			rates[variant] = append(rates[variant], rate)
		}
	}
	r.out.Table("messages of 100 bytes on one stream, a second", [][]string{
		{"path", fmt.Sprintf("%.0f", figure.Median("", rates[path]).Value)},
		{"bare", fmt.Sprintf("%.0f", figure.Median("", rates[bare]).Value)},
	})
	return []figure.Figure{figure.Median("rpc.stream_messages", rates[path])}, nil
}

// subscriberConnections is over how many connections the subscribers are spread: a server of ours takes 1,000 calls on one.
const subscriberConnections = 16

// watch is what one round of the fan-out measured.
type watch struct {
	p50, p99, most         time.Duration // of the time from publication to arrival
	resident, heap, stacks float64       // bytes for a stream that waits
	goroutines             float64       // for it
	opened                 time.Duration
}

// fanOut measures how long it takes until everybody has an event, and what a subscriber costs who waits for one.
func (r *run) fanOut(ctx context.Context) ([]figure.Figure, error) {
	var p99, resident []float64
	rows := [][]string{{"", "opened in", "kB resident/stream", "in heap", "in stacks", "goroutines/stream", "p50 ms", "p99 ms", "last ms"}}
	for _, variant := range []string{path, bare} {
		for range r.fanout {
			w, err := r.watchers(ctx, variant)
			if err != nil {
				return nil, fmt.Errorf("%s: %d subscribers: %w", variant, r.subscribers, err)
			}
			rows = append(rows, []string{
				variant, w.opened.Round(time.Millisecond).String(), fmt.Sprintf("%.1f", w.resident/1000),
				fmt.Sprintf("%.1f", w.heap/1000), fmt.Sprintf("%.1f", w.stacks/1000), fmt.Sprintf("%.1f", w.goroutines),
				fmt.Sprintf("%.1f", milliseconds(w.p50)), fmt.Sprintf("%.1f", milliseconds(w.p99)), fmt.Sprintf("%.1f", milliseconds(w.most)),
			})
			if variant == path {
				p99, resident = append(p99, milliseconds(w.p99)), append(resident, w.resident/1000)
			}
		}
	}
	r.out.Table(fmt.Sprintf("%d subscribers on %d connections, %d events a round", r.subscribers, subscriberConnections, r.events), rows)
	return []figure.Figure{figure.Median("rpc.fanout_p99", p99), figure.Median("rpc.idle_stream_kb", resident)}, nil
}

// watchers opens the subscriptions to a new server and publishes the events, each once all have the one before.
func (r *run) watchers(ctx context.Context, variant string) (w watch, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	p, err := r.lab.start(ctx, variant, r.tracing...)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	conns, closeAll, err := p.dial(ctx, r.asService, subscriberConnections)
	if err != nil {
		return w, err
	}
	defer closeAll()
	before, err := p.query(askMemory)
	if err != nil {
		return w, err
	}
	begun := time.Now()
	request := &load.Request{Method: watchEvents, Timeout: streamTimeout}
	subscribers := load.Subscribe(ctx, conns, request, r.subscribers, 1+r.events) // the first message is the resume point
	if err := subscribers.Await(0); err != nil {
		return w, err
	}
	w.opened = time.Since(begun)
	after, err := p.query(askMemory)
	if err != nil {
		return w, err
	}
	each := func(after, before uint64) float64 {
		return float64(int64(after)-int64(before)) / float64(r.subscribers)
	}
	w.resident, w.heap, w.stacks = each(after.RSS, before.RSS), each(after.Heap, before.Heap), each(after.Stacks, before.Stacks)
	w.goroutines = float64(after.Goroutines-before.Goroutines) / float64(r.subscribers)
	var all histogram.Histogram
	for n := 1; n <= r.events; n++ {
		published, err := p.query(askPublish)
		if err != nil {
			return w, err
		}
		if err := subscribers.Await(n); err != nil {
			return w, err
		}
		for _, at := range subscribers.Arrived[n] {
			all.Record(time.Duration(at.UnixNano() - published.At))
		}
	}
	w.p50, w.p99, w.most = all.Quantile(0.5), all.Quantile(0.99), all.Quantile(1)
	return w, nil
}
