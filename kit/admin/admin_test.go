package admin_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concordat-dev/concordat/kit/admin"
	"github.com/concordat-dev/concordat/kit/usage"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start serves an admin port until the test ends and returns its address; broken says what is wrong.
func start(t *testing.T, change ...func(*admin.Config)) (address string, broken *atomic.Pointer[error]) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ours", Help: "x"}, func() float64 { return 7 }))
	broken = &atomic.Pointer[error]{}
	cfg := admin.Config{
		Listener: listen(t, "127.0.0.1:0"), Metrics: registry, Log: slog.New(slog.DiscardHandler),
		Ready: func() []admin.Check {
			checks := []admin.Check{{Name: "serving"}, {Name: "store"}}
			if err := broken.Load(); err != nil {
				checks[1].Err = *err
			}
			return checks
		},
		Contracts: func() map[string]string { return map[string]string{"users": "abc"} },
		Usage:     func() usage.Snapshot { return usage.Snapshot{Version: usage.Version, Service: "users", Dropped: 9} },
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
			t.Error("the port is open after Stop")
		}
	})
	return s.Addr().String(), broken
}

// get returns what is at a path.
func get(t *testing.T, address, path string, headers ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

func TestEachPageShowsWhatItSays(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///somewhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	address, _ := start(t)
	for path, tc := range map[string]struct {
		status int
		want   string
	}{
		"/":                              {200, "/metrics"},
		"/metrics":                       {200, "ours 7"},
		"/healthz":                       {200, "ok\n"},
		"/readyz":                        {200, "serving: ok\nstore: ok\n"},
		"/buildinfo":                     {200, `"users": "abc"`},
		"/usage":                         {200, `"service": "users"`},
		"/debug/pprof/":                  {200, "goroutine"},
		"/debug/pprof/goroutine?debug=1": {200, "goroutine profile"},
		"/debug/pprof/cmdline":           {200, "admin.test"},
		"/channelz/":                     {200, "/channelz/servers"},
		"/channelz/channels":             {200, "somewhere"},
		"/channelz/servers":              {200, "{"},
		"/channelz/socket?id=99999999":   {404, "not found"},
		"/channelz/socket?id=x":          {400, "id"},
		"/nothing":                       {404, ""},
	} {
		if status, body := get(t, address, path); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %q, want %d with %q", path, status, body, tc.status, tc.want)
		}
	}
	_, body := get(t, address, "/buildinfo")
	var info struct {
		Version, Revision, Go string
		Contracts             map[string]string
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil || !strings.HasPrefix(info.Go, "go1.") || info.Version == "" {
		t.Errorf("build info %+v, %v", info, err)
	}
	_, body = get(t, address, "/usage")
	var used usage.Snapshot
	if err := json.Unmarshal([]byte(body), &used); err != nil || used.Version != usage.Version || used.Dropped != 9 {
		t.Errorf("usage %+v, %v", used, err)
	}
}

func TestReadinessFlipsWithTheChecks(t *testing.T) {
	address, broken := start(t)
	err := errors.New("disk is gone\nfor good")
	broken.Store(&err)
	if status, body := get(t, address, "/readyz"); status != 503 || body != "serving: ok\nstore: disk is gone; for good\n" {
		t.Errorf("%d %q", status, body)
	}
	if status, _ := get(t, address, "/healthz"); status != 200 {
		t.Errorf("the process runs, and /healthz says %d", status)
	}
	broken.Store(nil)
	if status, body := get(t, address, "/readyz"); status != 200 {
		t.Errorf("%d %q", status, body)
	}
}

func TestOtherMachinesReachThePortOnlyWhereThatIsAllowed(t *testing.T) {
	l := listen(t, "0.0.0.0:0")
	if _, err := admin.New(admin.Config{Listener: l, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("it listens on every interface")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is left open: %v", err)
	}
	address, _ := start(t, func(c *admin.Config) {
		_ = c.Listener.Close()
		c.Listener, c.BeyondLoopback = listen(t, "0.0.0.0:0"), true
	})
	_, port, _ := net.SplitHostPort(address)
	if status, _ := get(t, "127.0.0.1:"+port, "/healthz", "Host", "users.example.com"); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestAPageOfAnotherOriginGetsNothing(t *testing.T) {
	address, _ := start(t)
	for name, tc := range map[string]struct {
		headers []string
		status  int
	}{
		"an address":                    {nil, 200},
		"localhost":                     {[]string{"Host", "localhost:51051"}, 200},
		"an address of version 6":       {[]string{"Host", "[::1]:51051"}, 200},
		"a name that points here":       {[]string{"Host", "rebound.example.com"}, 421},
		"a page that asks across":       {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a person who types an address": {[]string{"Sec-Fetch-Site", "none"}, 200},
	} {
		if status, _ := get(t, address, "/metrics", tc.headers...); status != tc.status {
			t.Errorf("%s: %d, want %d", name, status, tc.status)
		}
	}
}

func TestOnlyQuestionsAreAnswered(t *testing.T) {
	address, _ := start(t)
	resp, err := http.Post("http://"+address+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status %d", resp.StatusCode)
	}
}
