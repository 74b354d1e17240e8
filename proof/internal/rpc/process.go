package rpc

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// What the certificates and tokens of a run say; issuer and audience are the defaults of kit.Common.
const (
	trustDomain = "concordat"
	issuer      = "http://localhost:8080"
	audience    = "concordat"
	edge        = "gateway"
)

// lab is what the servers of a run share: a PKI, a key and a token, in a directory that goes with it.
type lab struct {
	dir        string
	self       string // the program that is a server when it is told to
	serverCore int
	dev        *pki.Development
	key        token.Key
	token      string // of theUser
	asEdge     *tls.Config
	asService  *tls.Config
}

// newLab makes the certificates and the token. The directory is the caller's to remove.
func newLab(ctx context.Context, dir string, serverCore int) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	l := &lab{dir: dir, self: self, serverCore: serverCore}
	if l.dev, err = pki.NewDevelopment(filepath.Join(dir, "pki"), trustDomain, clock.System()); err != nil {
		return nil, err
	}
	if err := l.dev.Ensure(ctx, serverName, edge, nearby); err != nil {
		return nil, err
	}
	for name, config := range map[string]**tls.Config{edge: &l.asEdge, nearby: &l.asService} {
		identity, err := l.dev.Identity(ctx, name, func(error) {}) // made a moment ago, and not replaced
		if err != nil {
			return nil, err
		}
		*config = identity.ClientTLS(serverName)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	signer := token.NewSigner(private, issuer, audience, clock.System(), id.Generator(clock.System(), rand.Reader))
	l.key = signer.Key()
	l.token, err = signer.Sign(identity.User{
		ID: theUser, SessionID: "01890a5d-ac96-774b-bcce-b302099a8058", Scopes: []string{scope}, ExpiresAt: time.Now().Add(time.Hour),
	})
	return l, err
}

// process is a server that runs.
type process struct {
	report // what it said when it was ready

	cmd     *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Reader
	log     string
}

// start runs a variant and returns once it serves. It ends when it is stopped, or with ctx.
func (l *lab) start(ctx context.Context, variant string, env ...string) (p *process, err error) {
	log, err := os.CreateTemp(l.dir, variant+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p = &process{log: log.Name()}
	p.cmd = exec.CommandContext(ctx, l.self, "--pki", filepath.Join(l.dir, "pki"), "--trust-domain", trustDomain,
		"--key-id="+l.key.ID, "--key="+l.key.X()) // in one word each: they may begin with "-"
	p.cmd.Env = append(quiet(os.Environ()), env...)
	p.cmd.Env = append(p.cmd.Env, Variable+"="+variant)
	if p.cmd.Stderr, err = appendTo(p.log); err != nil {
		return nil, err
	}
	defer p.cmd.Stderr.(*os.File).Close()
	if p.ask, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = bufio.NewReader(out)
	if err := machine.StartOn(l.serverCore, p.cmd); err != nil {
		return nil, fmt.Errorf("start the variant %s: %w", variant, err)
	}
	if p.report, err = p.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the variant %s: %w", variant, err), p.stop())
	}
	return p, nil
}

// appendTo opens a log so that it can be emptied while it is written.
func appendTo(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o600)
}

// quiet leaves out of an environment what would change a server: its settings, those of the runtime, and those of tracing.
func quiet(environ []string) []string {
	var kept []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "CONCORDAT_") || strings.HasPrefix(name, "OTEL_") || strings.HasPrefix(name, "GO") {
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

func (p *process) read() (r report, err error) {
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		text, _ := os.ReadFile(p.log)
		return r, fmt.Errorf("the server ended: %w\n%s", err, text[max(len(text)-2000, 0):])
	}
	return r, json.Unmarshal(line, &r)
}

// query asks the server and returns its answer.
func (p *process) query(what string) (report, error) {
	if _, err := io.WriteString(p.ask, what+"\n"); err != nil {
		return report{}, fmt.Errorf("ask the server: %w", err)
	}
	return p.read()
}

// stop ends the server as the end of its input does, and waits for it.
func (p *process) stop() error {
	_ = p.ask.Close() // it may have ended already, which Wait says
	_, _ = io.Copy(io.Discard, p.answers)
	if err := p.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(p.log)
		return fmt.Errorf("stop the server: %w\n%s", err, text[max(len(text)-2000, 0):])
	}
	return nil
}

// dial opens connections to the server.
func (p *process) dial(ctx context.Context, config *tls.Config, count int) (conns []*load.Conn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range count {
		c, err := load.Dial(ctx, p.Address, config)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}
