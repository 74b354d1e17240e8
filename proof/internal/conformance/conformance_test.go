package conformance

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/spec"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/concordat-dev/concordat/kit/policy"
)

// TestMain is also the main function of the roles.
func TestMain(m *testing.M) {
	if role := os.Getenv(Variable); role != "" {
		os.Exit(Serve(role))
	}
	os.Exit(m.Run())
}

// both starts both servers, until the test ends.
func both(t *testing.T) (*lab, pair[*process]) {
	t.Helper()
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // else each process of a case would end with a second's sleep
	l, err := newLab(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	start := func(role string) *process {
		p, err := l.serve(t.Context(), role)
		if err != nil {
			t.Fatal(err)
		}
		// t.Context ends before the cleanups, and kills what still runs.
		t.Cleanup(func() { _ = p.stop() })
		return p
	}
	return l, pair[*process]{start(path), start(stock)}
}

// silent returns a server that takes connections and says nothing on them.
func silent(t *testing.T) *process {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return &process{address: listener.Addr().String()}
}

func TestThePathPassesTheCasesAsTheyAreOrAsItsDesignSays(t *testing.T) {
	l, servers := both(t)
	var out strings.Builder
	results := l.interop(t.Context(), interopCases(), servers)
	printInterop(&out, results)
	for _, r := range results {
		if r.stock.verdict != passed {
			t.Errorf("%s: stock grpc-go fails: %s", r.name, r.stock.why)
		}
		if r.ours.verdict == failed {
			t.Errorf("%s: %s", r.name, r.ours.why)
		}
		if r.ours.verdict != passed && (r.ours.why == "" || !strings.Contains(out.String(), r.ours.why)) {
			t.Errorf("%s: the reason %q is not printed", r.name, r.ours.why)
		}
	}
}

func TestTheAnswerByDesignIsHeldToWhatTheDesignSays(t *testing.T) {
	l, servers := both(t)
	for _, name := range []string{"status_code_and_message", "special_status_message"} {
		if got := l.ask(t.Context(), servers.stock, name, true); got.verdict != failed || !strings.Contains(got.why, "is no INTERNAL") {
			t.Errorf("%s: stock grpc-go, which shows every status, is said to have %v: %s", name, got.verdict, got.why)
		}
	}
}

func TestACaseThatFailsIsOneFailedCase(t *testing.T) {
	l, servers := both(t)
	nobody := &process{address: "127.0.0.1:0"}
	answered := l.interop(t.Context(), interopCases()[:1], pair[*process]{nobody, servers.stock})
	if r := answered[0]; r.ours.verdict != failed || r.ours.why == "" || r.stock.verdict != passed {
		t.Errorf("nobody %v (%s), stock %v (%s)", r.ours.verdict, r.ours.why, r.stock.verdict, r.stock.why)
	}
	if got := l.ask(t.Context(), servers.stock, "no_such_case", false); got.verdict != failed {
		t.Errorf("a case that does not exist %v", got.verdict)
	}
	var out strings.Builder
	printInterop(&out, answered)
	figures := interopFigures(answered)
	if !strings.Contains(out.String(), "FAILED") || figures[0].Value != 0 || figures[1].Value != 1 {
		t.Errorf("%v of\n%s", figures, out.String())
	}
}

func TestACaseThatDoesNotEndIsGivenUp(t *testing.T) {
	l, _ := both(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := l.ask(ctx, silent(t), "empty_unary", false); got != (answer{failed, notEnded}) {
		t.Errorf("%v (%s)", got.verdict, got.why)
	}
}

func TestThePathFailsWhatStockFailsOfH2spec(t *testing.T) {
	l, servers := both(t)
	results, err := l.h2spec(t.Context(), h2specSuite(false), servers, patience(false))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	printH2spec(&out, results)
	if figures := h2specFigures(results); len(results) != 145 || figures[0].Value < 112 || figures[1].Value != 0 {
		t.Errorf("%v of %d cases:\n%s", figures, len(results), out.String())
	}
}

func TestH2specTellsServersApart(t *testing.T) {
	l, servers := both(t)
	cases := h2specSuite(true)[:4]
	results, err := l.h2spec(t.Context(), cases, pair[*process]{silent(t), servers.stock}, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	printH2spec(&out, results)
	unlike := count(results)["passed"].stock
	figures := h2specFigures(results)
	if unlike == 0 || figures[0].Value != 0 || figures[1].Value != float64(unlike) || strings.Count(out.String(), "UNLIKE") != unlike {
		t.Errorf("%v of\n%s", figures, out.String())
	}
}

func TestTheSuiteIsThatOfH2specsOwnCommand(t *testing.T) {
	ids := map[string]bool{}
	for _, c := range h2specSuite(false) {
		if ids[c.id] || c.Run == nil {
			t.Errorf("%s is there twice, or does nothing", c.id)
		}
		ids[c.id] = true
	}
	if len(ids) != 145 {
		t.Errorf("%d cases", len(ids))
	}
}

func TestACaseThatAResetEndsIsRunAgain(t *testing.T) {
	l, servers := both(t)
	cfg, err := l.h2specConfig(servers.stock.address, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	reset := &spec.TestError{Actual: "Error: read tcp: " + syscall.ECONNRESET.Error()}
	for _, c := range []struct {
		what  string
		ends  []error // of each run
		runs  int
		fails bool
	}{
		{"passes", []error{nil}, 1, false},
		{"fails", []error{&spec.TestError{Actual: "Timeout"}}, 1, true},
		{"is reset, then passes", []error{reset, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, nil}, 3, false},
		{"is reset each time", slices.Repeat([]error{reset}, tries+1), tries, true},
	} {
		runs := 0
		one := h2specCase{"test/1", &spec.TestCase{Run: func(*config.Config, *spec.Conn) error {
			runs++
			return c.ends[runs-1]
		}}}
		if err := one.settled(t.Context(), cfg); (err != nil) != c.fails || runs != c.runs {
			t.Errorf("one that %s: %v after %d runs", c.what, err, runs)
		}
	}
	broken := h2specCase{"test/2", &spec.TestCase{Run: func(*config.Config, *spec.Conn) error { panic("h2spec") }}}
	if err := broken.settled(t.Context(), cfg); err == nil {
		t.Error("one that panics passes")
	}
}

func TestACaseThatOneSkipsAndTheOtherFailsIsADifference(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		ours, stock error
		want        bool
	}{
		{nil, nil, false}, {bad, errors.New("otherwise bad"), false}, {spec.ErrSkipped, spec.ErrSkipped, false},
		{bad, nil, true}, {nil, bad, true}, {bad, spec.ErrSkipped, true}, {nil, spec.ErrSkipped, true},
	} {
		if got := (h2specResult{pair: pair[error]{c.ours, c.stock}}).unlike(); got != c.want {
			t.Errorf("ours %v, stock %v: unlike is %t", c.ours, c.stock, got)
		}
	}
}

func TestTheContractOfTheCasesGetsPoliciesAndIsOtherwiseTheSame(t *testing.T) {
	files, err := withPolicies(protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	service := func(in *protoregistry.Files) protoreflect.ServiceDescriptor {
		d, err := in.FindDescriptorByName(protoreflect.FullName(testgrpc.TestService_ServiceDesc.ServiceName))
		if err != nil {
			t.Fatal(err)
		}
		return d.(protoreflect.ServiceDescriptor)
	}
	table, err := policy.Compile(service(files))
	if err != nil {
		t.Error(err)
	}
	if methods := service(protoregistry.GlobalFiles).Methods().Len(); len(table) != methods {
		t.Errorf("%d of %d methods have a policy", len(table), methods)
	}
	if _, err := policy.Compile(service(protoregistry.GlobalFiles)); err == nil {
		t.Error("the registry that it came from was changed")
	}
	if files.NumFiles() != protoregistry.GlobalFiles.NumFiles() {
		t.Errorf("%d files, of %d", files.NumFiles(), protoregistry.GlobalFiles.NumFiles())
	}
}
