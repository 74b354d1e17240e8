package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/dynamicpb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What is shown of calls and of what they did, as opposed to what is answered to them: exported spans, the pages of the
// edge and of the admin port, and the reads and streams that a console makes for an administrator.

// browser is an administrator's, with a stream of everything open since before a secret was planted.
type browser struct {
	s     *search
	web   httpWire
	admin account
	open  map[string]*watched // by the path of the method
}

// browse opens every stream of events, from here on.
func (s *search) browse(web httpWire, admin account) *browser {
	s.t.Helper()
	b := &browser{s: s, web: web, admin: admin, open: map[string]*watched{}}
	for _, m := range contract(s.t) {
		if b.watches(m) {
			b.open[m.path()] = b.follow(m)
		}
	}
	if len(b.open) < 3 {
		s.t.Errorf("there are %d streams of events", len(b.open))
	}
	return b
}

// watches reports whether a method goes on for as long as somebody listens.
func (b *browser) watches(m method) bool {
	return m.IsStreamingServer() && b.reads(m) && strings.HasPrefix(string(m.Name()), "Watch")
}

// reads reports whether a method shows something to people and changes nothing.
func (b *browser) reads(m method) bool {
	return !m.changes() && !m.IsStreamingClient() && m.isFor(policyv1.Audience_AUDIENCE_USER)
}

// ask encodes a request that names nothing but, where that is needed, whose things it asks for.
func (b *browser) ask(m method, owner string) []byte {
	b.s.t.Helper()
	req := dynamicpb.NewMessage(m.Input())
	if path := m.policy.GetSelf().GetField(); path != "" && owner != "" {
		set(req, path, owner)
	}
	body, err := protojson.Marshal(req)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return body
}

// follow keeps what a stream of Connect brings, a line for each message, and returns once the first is there.
func (b *browser) follow(m method) *watched {
	t := b.s.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, done := newWatched(), make(chan struct{})
	go func() {
		defer close(done)
		defer out.close()
		_, _, err := b.web.send(ctx, http.MethodPost, m.path(), "application/connect+json", b.admin.access, frame(b.ask(m, "")),
			func(r io.Reader) ([]byte, error) {
				for {
					data, err := firstFrame(r)
					if err != nil || data == nil {
						return nil, err
					}
					if _, err := fmt.Fprintf(out, "%s\n", data[frameHeader:]); err != nil {
						return nil, err
					}
				}
			})
		if err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", m.path(), err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	if _, err := out.find(within(t), regexp.MustCompile(`resume_?[tT]oken`)); err != nil {
		t.Fatalf("%s: %v: %s", m.path(), err, out)
	}
	return out
}

// lookAtEvents looks at what the streams have brought, up to the last thing that happened.
func (b *browser) lookAtEvents(last map[string]string) {
	b.s.t.Helper()
	for path, out := range b.open {
		if last[path] == "" {
			b.s.t.Errorf("%s: teach this test what happens last", path)
			continue
		}
		if _, err := out.find(within(b.s.t), regexp.MustCompile(regexp.QuoteMeta(last[path]))); err != nil {
			b.s.t.Errorf("%s does not tell of %s: it cannot tell (%v)", path, last[path], err)
		}
		b.s.show("the events of "+path, out.String())
	}
}

// lookAtReads makes every call that shows something, for what belongs to an account.
func (b *browser) lookAtReads(owner account) {
	b.s.t.Helper()
	shown := 0
	for _, m := range contract(b.s.t) {
		if !b.reads(m) || b.watches(m) {
			continue
		}
		contentType, body := "application/json", b.ask(m, owner.id)
		if m.streams() {
			contentType, body = "application/connect+json", frame(body)
		}
		resp, data, err := b.web.send(within(b.s.t), http.MethodPost, m.path(), contentType, b.admin.access, body, io.ReadAll)
		if err != nil {
			b.s.t.Errorf("%s: %v", m.path(), err)
			continue
		}
		b.s.show("what "+m.path()+" reads", everything(resp, data))
		if resp.StatusCode == http.StatusOK && strings.Contains(string(data), owner.id) {
			shown++
		}
	}
	if shown < 3 {
		b.s.t.Errorf("%d reads show the account: they cannot tell", shown)
	}
}

// finish has something happen to an account in every service, and returns by what each stream of events tells of it.
func (h *house) finish(t *testing.T, a account) map[string]string {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+a.access)
	paid, err := paymentsv1.NewPaymentServiceClient(h.edge.conn).Charge(ctx, &paymentsv1.ChargeRequest{
		OrderId: "last", AmountCents: 100, Currency: "EUR", IdempotencyKey: "last", CustomerId: a.id,
	})
	if err != nil {
		t.Fatal(err)
	}
	last := h.join(t, "")
	return map[string]string{
		"/payments.v1.PaymentService/WatchTransactions": paid.GetPayment().GetPaymentId(),
		"/auth.v1.AuthService/WatchUserEvents":          last.id,
		"/users.v1.UserService/WatchUsers":              last.id,
	}
}

// show is look and lookForExact for what must hold no secret of any kind.
func (s *search) show(where, text string) {
	s.t.Helper()
	s.look(where, text)
	s.lookForExact(where, text)
}

var link = regexp.MustCompile(`(?:href|src)="(/[^"]*)"`)

// lookAtPages looks at the pages of the edge: the first, and all that a browser gets to from there.
func (b *browser) lookAtPages() {
	b.s.t.Helper()
	seen := b.crawl(b.web, link)
	for _, path := range []string{"/readyz", "/healthz", "/openapi.yaml", "/.well-known/jwks.json"} {
		if !seen[path] {
			b.s.t.Errorf("no page leads to %s", path)
		}
	}
}

// listed is a page that needs to be told nothing.
var listed = regexp.MustCompile(`(?m)^(/[a-z/]+)(?:$|[ [])`)

// lookAtAdmin looks at the pages of the admin port that are listed on others, and at what its profiles say in words.
func (b *browser) lookAtAdmin(admin string) {
	b.s.t.Helper()
	seen := b.crawl(httpWire{http.DefaultClient, admin}, listed)
	for _, path := range []string{"/metrics", "/readyz", "/buildinfo", "/usage", "/channelz/servers", "/channelz/channels"} {
		if !seen[path] {
			b.s.t.Errorf("no page leads to %s", path)
		}
	}
	for _, path := range []string{"/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline"} {
		b.s.show(path, scrape(b.s.t, admin+path))
	}
}

// crawl looks at the page "/" and at every page that a page names, and returns their paths.
func (b *browser) crawl(web httpWire, names *regexp.Regexp) map[string]bool {
	b.s.t.Helper()
	seen := map[string]bool{"/": true}
	for next := []string{"/"}; len(next) > 0; next = next[1:] {
		resp, data, err := web.send(within(b.s.t), http.MethodGet, next[0], "", "", nil, io.ReadAll)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.s.t.Errorf("%s%s: %v %s", web.base, next[0], err, data)
			continue
		}
		b.s.show(web.base+next[0], everything(resp, data))
		for _, found := range names.FindAllStringSubmatch(string(data), -1) {
			if path := found[1]; !seen[path] {
				seen[path] = true
				next = append(next, path)
			}
		}
	}
	return seen
}

var tracedLine = regexp.MustCompile(`trace_id=([0-9a-f]{32})`)

// lookAtTraces looks at everything that was exported, as it came: names, attributes, events, texts of statuses and
// links. Every call whose line in the log names a trace has to be there.
func (s *search) lookAtTraces(collector *kittest.Collector, log string) {
	s.t.Helper()
	for _, export := range collector.Exports() {
		s.show("an exported trace", export)
	}
	traces, servers := map[string]bool{}, map[string]int{}
	for _, span := range collector.All() {
		traces[span.Trace] = true
		if span.Kind == "SERVER" {
			servers[span.Service]++
		}
	}
	lines := 0
	for _, line := range tracedLine.FindAllStringSubmatch(log, -1) {
		lines++
		if !traces[line[1]] {
			s.t.Errorf("the trace %s was not exported: the others cannot tell", line[1])
		}
	}
	if lines < s.calls {
		s.t.Errorf("%d lines of the log name a trace, of %d calls: they cannot tell", lines, s.calls)
	}
	for _, service := range []string{"gateway", "auth", "users", "payments"} {
		if servers[service] == 0 {
			s.t.Errorf("there is no span of a call to %s: they cannot tell", service)
		}
	}
	s.t.Logf("%d traces, spans of calls by service: %v", len(traces), servers)
}
