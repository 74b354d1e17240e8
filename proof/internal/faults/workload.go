package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// Service is a service that is broken on purpose.
type Service struct {
	// Name is that of its folder in services/, of its program, and in its certificate.
	Name string
	// Peer is the name in the certificate of who calls it.
	Peer string
	// Volatile says which files of its data directory are not there after a cut of the power, and need not be.
	Volatile func(path string) bool
	// Files are the names of the files in its data directory that a recording follows, whether they exist yet or not.
	Files []string
	// Beside starts what the service needs beside it, with certificates from the directory pki, and returns the settings that tell it
	// where that is, and what ends it. None means that it needs nothing.
	Beside func(ctx context.Context, pki string) (settings []string, end func() error, err error)
	// Alone is called while a standby is dead, and once there is none to wait for any more: it has the service take
	// another way to the answer of a call that is sent again. None means that there is but one.
	Alone func(on bool)
	// Verify are the arguments with which its program checks its data, the settings left out. None means that it cannot.
	Verify []string
	// New returns what is done to it. What it asks for it notes, with each answer and the time of it. Calls is told of each call of
	// Load.
	New func(seed uint64, calls Calls) Workload
	// Balanced says that its workloads look at invariants under load, and at the order of what was answered.
	Balanced bool
	// Faults returns more faults, of what this service alone stands on. None means that there are no others.
	Faults func(b *bench) []fault
	// Controls are builds of it with a mistake, which the harness must see.
	Controls []Control
}

// volatile names the files that a store does not need after a cut of the power.
func volatile(path string) bool {
	return strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "/lock")
}

// Calls is told of each call: when it begins and, by the function that it returns then, how it ended. It is called by many.
type Calls func() (ended func(error))

// Workload is what is done to a service while it is broken, and the book on what it had acknowledged. Each request has a key of its
// own, and one that was not answered with OK is sent again with the same key.
type Workload interface {
	// Begin is called once, before the first Load, on a service that has nothing yet.
	Begin(ctx context.Context, conn *grpc.ClientConn) error
	// Load calls the service, with several callers, until ctx ends.
	Load(ctx context.Context, conn *grpc.ClientConn)
	// Settle sends again what has no answer yet, and some of what has: all of it must be answered with OK.
	Settle(ctx context.Context, conn *grpc.ClientConn) error
	// Again sends once more what has no answer yet, in any order. Nothing of it need be answered.
	Again(ctx context.Context, conn *grpc.ClientConn)
	// Audit holds what the service has against what it had acknowledged by then. Cursor is what earlier audits of the same data had
	// read; nil means none.
	Audit(ctx context.Context, conn *grpc.ClientConn, by time.Time, cursor *Cursor) (Audit, error)
	// Probe writes something new, once.
	Probe(ctx context.Context, conn *grpc.ClientConn) error
	// Look reads something that was acknowledged.
	Look(ctx context.Context, conn *grpc.ClientConn) error
	// Ordered holds all that was answered against one order: whether a service that did one thing after another could have answered so.
	// It is for a store that has gone on all the time.
	Ordered() Audit
	// Acknowledged returns how much of what was asked for first after since was acknowledged by then. The zero time is before
	// everything.
	Acknowledged(since, by time.Time) int
	// AnswersAlone says that from now on, or no more, an acknowledgement is the answer to a call that writes, the first
	// one or that of its key, and nothing else: neither what others are told nor what is read. It is for a store that
	// shows what it may yet lose.
	AnswersAlone(on bool)
}

// Cursor is how far the events of a service have been read, and what they told.
type Cursor struct {
	token string
	told  map[string]int // how often each thing was told
}

// Audit is what came out of a comparison.
type Audit struct {
	Acknowledged int      // what must be there
	Lost         int      // what of it is not
	Doubled      int      // what is there, or was told, more often than once
	Wrong        []string // what else is not as it must be
	Glances      int      // how often the invariants were looked at under load
	Ordered      int      // how many operations are in an order that explains their answers
}

// add adds another audit.
func (a *Audit) add(b Audit) {
	a.Acknowledged += b.Acknowledged
	a.Lost += b.Lost
	a.Doubled += b.Doubled
	a.Wrong = append(a.Wrong, b.Wrong...)
	a.Glances += b.Glances
	a.Ordered += b.Ordered
}

// wrong notes what is not as it must be.
func (a *Audit) wrong(format string, args ...any) {
	a.Wrong = append(a.Wrong, fmt.Sprintf(format, args...))
}

// reason returns the code and the reason of an error, such as "ResourceExhausted STORAGE_FULL".
func reason(err error) string {
	code := status.Code(err).String()
	if f := grpcfault.FromError(err); f != nil && f.Reason() != "" {
		return code + " " + f.Reason()
	}
	return code
}

// gone says whether a call failed because there was nobody to answer it, or because the caller gave it up.
func gone(err error) bool {
	switch s := status.Convert(err); s.Code() {
	case codes.Canceled:
		return true
	case codes.Unavailable:
		return len(s.Details()) == 0
	}
	return false
}

// cutAt returns the token to go on from where a watch was cut because it did not keep up, "" where it did not end so. That may be: a
// service that comes back gives numbers to all that waited for one at once, more than is buffered for a watch.
func cutAt(err error) string {
	if f := grpcfault.FromError(err); f != nil && f.Reason() == eventlog.ErrSlowConsumer.Reason() {
		return f.Metadata()[eventlog.MetadataResumeToken]
	}
	return ""
}
