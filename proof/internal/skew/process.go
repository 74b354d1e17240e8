package skew

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/machine"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// patience bounds each step of starting and ending.
const patience = time.Minute

// errProtocol: the client of a tree does not speak as this lab does.
var errProtocol = errors.New("the client speaks another protocol")

// heard is everything that a client said.
type heard struct {
	vocabulary []string
	calls      []transcript.Call
	events     map[string][]transcript.Event // by stream
	tokens     map[string]string
	until      map[string]string
}

// ask runs a client for one request.
func ask(ctx context.Context, probe string, req transcript.Request) (heard, error) {
	in, err := json.Marshal(req)
	if err != nil {
		return heard{}, err
	}
	cmd := exec.CommandContext(ctx, probe)
	cmd.Env = clean(os.Environ())
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	failed := cmd.Run()
	h := heard{events: map[string][]transcript.Event{}}
	dec := json.NewDecoder(&out)
	for first := true; ; first = false {
		var l transcript.Line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if first && (err != nil || l.Protocol != transcript.Protocol) {
			return heard{}, errProtocol
		}
		if err != nil {
			return heard{}, fmt.Errorf("read what it says: %w", err)
		}
		h.add(l)
	}
	if failed != nil {
		return h, fmt.Errorf("%w: %s", failed, strings.TrimSpace(said.String()))
	}
	return h, nil
}

func (h *heard) add(l transcript.Line) {
	switch {
	case l.Vocabulary != nil:
		h.vocabulary = l.Vocabulary
	case l.Call != nil:
		h.calls = append(h.calls, *l.Call)
	case l.Event != nil:
		h.events[l.Event.Stream] = append(h.events[l.Event.Stream], *l.Event)
	case l.Tokens != nil:
		h.tokens = l.Tokens
	case l.Until != nil:
		h.until = l.Until
	}
}

// clean leaves out of an environment what would change a server: its settings, and those of the runtime and of tracing.
func clean(environ []string) []string {
	var kept []string
	for _, v := range environ {
		if !strings.HasPrefix(v, "CONCORDAT_") && !strings.HasPrefix(v, "OTEL_") && !strings.HasPrefix(v, "GO") {
			kept = append(kept, v)
		}
	}
	return kept
}

// server is a standalone that runs.
type server struct {
	child *machine.Child
	at    transcript.Place // complete once ready is closed
	log   string           // the file of what it logs
	ready chan struct{}
}

// errRefused: the server ended before it was ready.
var errRefused = errors.New("it ended before it was ready")

// row matches where the server says what is reached where.
var row = regexp.MustCompile(`^ +(HTTP|gRPC|auth|users|payments) +(?:https?://)?([0-9.:]+)`)

// code matches where it shows the code of the first administrator.
var code = regexp.MustCompile(`"admin_code": "([^"]+)"`)

// start runs a server over the data in a directory, and returns once every service is healthy.
func start(ctx context.Context, binary, dir string, more ...string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := []string{"--dir", filepath.Join(dir, "state")}
	for _, l := range []string{"auth-listen", "users-listen", "payments-listen", "gateway-http", "gateway-grpc", "admin"} {
		args = append(args, "--"+l, "127.0.0.1:0")
	}
	s := &server{log: filepath.Join(dir, "log"), ready: make(chan struct{})}
	s.at.PKI = filepath.Join(dir, "state", "pki")
	if err := s.launch(exec.Command(binary, append(args, more...)...)); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-s.ready:
		return s, nil
	case <-s.child.Ended:
		return nil, fmt.Errorf("%w: %w\n%s", errRefused, s.child.Err(), s.said())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("start %s: %w\n%s", binary, ctx.Err(), s.said()), s.child.End(syscall.SIGKILL, patience))
	}
}

// launch starts the process and follows what it prints.
func (s *server) launch(cmd *exec.Cmd) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Env, cmd.Stderr = clean(os.Environ()), log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.child, err = machine.Start(cmd, func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.hear(lines.Text())
		}
	})
	return err
}

// hear takes from a line what it says of where the server is. The last part of what the server shows says what to try.
func (s *server) hear(line string) {
	if strings.HasPrefix(line, "Try:") {
		close(s.ready)
	}
	if m := code.FindStringSubmatch(line); m != nil {
		s.at.AdminCode = m[1]
	}
	if m := row.FindStringSubmatch(line); m != nil {
		*map[string]*string{
			"HTTP": &s.at.HTTP, "gRPC": &s.at.GRPC, "auth": &s.at.Auth, "users": &s.at.Users, "payments": &s.at.Payments,
		}[m[1]] = m[2]
	}
}

// said returns the end of its log.
func (s *server) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text[max(len(text)-2000, 0):])
}

// stop ends the server as an operator does.
func (s *server) stop() error {
	if err := s.child.End(syscall.SIGTERM, patience); err != nil {
		return err
	}
	if err := s.child.Err(); err != nil {
		return fmt.Errorf("the server did not stop cleanly: %w\n%s", err, s.said())
	}
	return nil
}
