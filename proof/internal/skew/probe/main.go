// Command probe is a client of one version of the contract: it is built inside a tree, against the messages and stubs
// of that tree, and says what it sees of a server of any version. It reads one transcript.Request from its standard
// input and writes transcript.Lines, one JSON object each. It stands on gen and grpc-go alone, so that it compiles in
// older trees as well: deadlines, retries and the other rules of kit/client are not its subject.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// timeout bounds everything that a probe is asked for.
const timeout = time.Minute

// packages are those whose names are the vocabulary.
var packages = []string{"auth.v1", "users.v1", "payments.v1", "policy.v1"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// run does what it is asked for.
func run(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var req transcript.Request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	w := json.NewEncoder(out)
	if err := w.Encode(transcript.Line{Protocol: transcript.Protocol, Vocabulary: transcript.Vocabulary(packages...)}); err != nil {
		return err
	}
	if req.Do == transcript.Names {
		return nil
	}
	p, err := connect(req, w)
	if err != nil {
		return err
	}
	defer p.close()
	switch req.Do {
	case transcript.Calls:
		return p.calls(ctx)
	case transcript.Mark:
		return p.mark(ctx)
	case transcript.Write:
		return p.write(ctx)
	case transcript.Follow:
		return p.follow(ctx, req.Tokens, req.Until)
	}
	return fmt.Errorf("asked to do %q", req.Do)
}

// probe is connected to the services and to the edge.
type probe struct {
	seed  string
	place transcript.Place
	out   *json.Encoder
	conns []*grpc.ClientConn
	err   error // of writing to out; the first one

	// Over the edge, as a person.
	sessions authv1.SessionServiceClient
	admin    authv1.AdminServiceClient
	keys     authv1.KeyServiceClient
	people   usersv1.UserServiceClient
	checkout paymentsv1.PaymentServiceClient

	// To the services, as one of them.
	auth     authv1.AuthServiceClient
	users    usersv1.UserServiceClient
	payments paymentsv1.PaymentServiceClient
	ledger   paymentsv1.LedgerServiceClient
}

func connect(req transcript.Request, out *json.Encoder) (*probe, error) {
	p := &probe{seed: req.Seed, place: req.At, out: out}
	config, err := developer(req.At.PKI)
	if err != nil {
		return nil, err
	}
	dial := func(address, name string) (*grpc.ClientConn, error) {
		creds := insecure.NewCredentials()
		if name != "" {
			creds = credentials.NewTLS(config)
		}
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableRetry())
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
		p.conns = append(p.conns, conn)
		return conn, nil
	}
	var at [4]*grpc.ClientConn
	for i, to := range [][2]string{{req.At.GRPC, ""}, {req.At.Auth, "auth"}, {req.At.Users, "users"}, {req.At.Payments, "payments"}} {
		if at[i], err = dial(to[0], to[1]); err != nil {
			p.close()
			return nil, err
		}
	}
	p.sessions, p.admin, p.keys = authv1.NewSessionServiceClient(at[0]), authv1.NewAdminServiceClient(at[0]), authv1.NewKeyServiceClient(at[0])
	p.people, p.checkout = usersv1.NewUserServiceClient(at[0]), paymentsv1.NewPaymentServiceClient(at[0])
	p.auth, p.users = authv1.NewAuthServiceClient(at[1]), usersv1.NewUserServiceClient(at[2])
	p.payments, p.ledger = paymentsv1.NewPaymentServiceClient(at[3]), paymentsv1.NewLedgerServiceClient(at[3])
	return p, nil
}

func (p *probe) close() {
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// developer returns the configuration of TLS with the certificate of the person at the keyboard.
func developer(dir string) (*tls.Config, error) {
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in %s", filepath.Join(dir, "ca.pem"))
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "developer.pem"), filepath.Join(dir, "developer.key"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost", MinVersion: tls.VersionTLS13}, nil
}

// line writes a line. What cannot be written ends the probe at the end of what it does.
func (p *probe) line(l transcript.Line) {
	if err := p.out.Encode(l); err != nil && p.err == nil {
		p.err = err
	}
}

// uuid returns an id for a name: another one for another seed. It is of version 7, which users asks for.
func (p *probe) uuid(name string) string {
	h := sha256.Sum256([]byte(p.seed + "/" + name))
	h[0], h[1] = 0x01, 0x99 // a time of the year 2025
	h[6], h[8] = 0x70|h[6]&0x0f, 0x80|h[8]&0x3f
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// email returns an address for a name. It is the same for each seed.
func (p *probe) email(name string) string { return name + "-" + p.seed + "@skew.example" }

// as adds an access token to calls.
func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// future is a field that no version has: number 9000, a text.
var future = append([]byte{0xc2, 0xb2, 0x04, 0x06}, "future"...)

// withFuture adds the field to a message, as a client of a later version would.
func withFuture[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(future)
	return m
}
