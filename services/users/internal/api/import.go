package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

const (
	// importBatch is the most rows that one transaction stores, and the most that wait for it.
	importBatch = 1000
	// importBytes is how much of rows an import holds in memory, by their size on the wire. One row that is larger than that is held
	// alone.
	importBytes = 4 << 20
	// maxFailures is how many failures are told one by one; the rest is only counted.
	maxFailures = 1000
	// maxFailureBytes is how much they may take of the answer, which is one message of at most 4 MiB.
	maxFailureBytes = 3 << 20
)

type importStream = grpc.ClientStreamingServer[usersv1.CreateUsersRequest, usersv1.CreateUsersResponse]

// CreateUsers imports users. While one transaction stores rows, the next ones gather; nothing waits for a full batch. It
// holds at most two batches of rows and importBytes of them in memory, and reads no more from the client until there is room.
func (s *Server) CreateUsers(stream importStream) error {
	ctx := stream.Context()
	in := receive(ctx, stream)
	defer in.stop()
	resp := &answer{}
	for {
		batch, err := in.next(ctx, server.Draining(ctx))
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&resp.CreateUsersResponse)
		}
		if err != nil {
			return err
		}
		if err := s.store(ctx, batch, resp); err != nil {
			return err
		}
		in.release(batch)
	}
}

// answer is what an import will be answered with.
type answer struct {
	usersv1.CreateUsersResponse
	bytes int  // of the failures
	full  bool // no more are told
}

// tell adds why a row was not stored, as long as there is room: the first rows are told of, none between them is left out.
func (a *answer) tell(f *usersv1.CreateUsersFailure) {
	a.bytes += proto.Size(f) + 8 // tag and length
	if a.full = a.full || len(a.Failures) == maxFailures || a.bytes > maxFailureBytes; !a.full {
		a.Failures = append(a.Failures, f)
	}
}

// store makes the users of a batch and adds what became of it to the answer.
func (s *Server) store(ctx context.Context, batch []row, resp *answer) error {
	valid := make([]users.NewUser, 0, len(batch))
	for _, r := range batch {
		if r.broken == nil {
			valid = append(valid, r.user)
		}
	}
	var outcomes []users.Outcome
	if len(valid) > 0 {
		var err error
		if outcomes, err = s.users.CreateAll(ctx, valid); err != nil {
			return err
		}
	}
	for _, r := range batch {
		failed := r.broken
		if failed == nil {
			failed, outcomes = outcomes[0].Err, outcomes[1:]
		}
		if failed == nil {
			resp.CreatedCount++
			continue
		}
		resp.FailedCount++
		resp.tell(&usersv1.CreateUsersFailure{Index: r.index, Status: grpcfault.Status(failed, domain)})
	}
	return nil
}

// row is one row of an import.
type row struct {
	index  int32
	user   users.NewUser
	broken error // INVALID_REQUEST, where the row breaks the rules of its message
	bytes  int64 // what it takes of the room
}

// ErrCheckOnlyRow: a row of an import asks to be checked only, which CreateUser does.
var ErrCheckOnlyRow = fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").
	WithDomain(fault.Domain).
	WithViolation("validate_only", "create_users.validate_only", "must not be set: an import stores its rows")

// intake is the rows of a stream that have arrived and not been taken yet.
type intake struct {
	rows chan row      // closed at the end of the stream
	end  error         // why rows was closed, io.EOF when the client was done; read it only then
	gone chan struct{} // closed when nobody takes rows any more
	room *semaphore.Weighted
}

// receive begins to take rows in. A receive can only be ended by the transport, so it has a goroutine of its own, which ends with
// the stream.
func receive(ctx context.Context, stream importStream) *intake {
	in := &intake{rows: make(chan row, importBatch), gone: make(chan struct{}), room: semaphore.NewWeighted(importBytes)}
	go func() {
		defer close(in.rows)
		in.end = in.receive(ctx, stream)
	}()
	return in
}

func (in *intake) receive(ctx context.Context, stream importStream) (err error) {
	defer func() {
		// The guard of the request path is around the handler, not around what it starts.
		if v := recover(); v != nil {
			err = fmt.Errorf("panic while receiving: %v\n%s", v, debug.Stack())
		}
	}()
	caller := identity.From(ctx)
	for index := int32(0); ; index++ {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		r, err := newRow(ctx, index, caller, req.GetUser())
		if err != nil {
			return err
		}
		r.bytes = min(int64(proto.Size(req)), importBytes)
		if err := in.room.Acquire(ctx, r.bytes); err != nil {
			return context.Cause(ctx)
		}
		select {
		case in.rows <- r:
		case <-in.gone:
			return nil
		}
	}
}

// newRow holds a row against the rules of CreateUser, which a row without a user breaks too.
func newRow(ctx context.Context, index int32, caller identity.Caller, req *usersv1.CreateUserRequest) (row, error) {
	if req == nil {
		req = &usersv1.CreateUserRequest{}
	}
	err := server.Validate(ctx, req)
	switch {
	case err == nil && req.GetValidateOnly():
		return row{index: index, broken: ErrCheckOnlyRow}, nil
	case err == nil:
		return row{index: index, user: newUser(caller, req)}, nil
	case fault.KindOf(err) == fault.InvalidArgument:
		return row{index: index, broken: err}, nil
	default:
		return row{}, fmt.Errorf("validate row %d: %w", index, err)
	}
}

// next waits for a row and returns it with all that have arrived meanwhile, at most importBatch. It returns io.EOF after the last
// row, why the stream broke, or that the server is stopping.
func (in *intake) next(ctx context.Context, draining <-chan struct{}) ([]row, error) {
	select {
	case <-draining:
		return nil, server.ErrDraining
	default:
	}
	batch := make([]row, 0, max(len(in.rows), 1))
	select {
	case r, open := <-in.rows:
		if !open {
			return nil, in.end
		}
		batch = append(batch, r)
	case <-draining:
		return nil, server.ErrDraining
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for len(batch) < importBatch {
		select {
		case r, open := <-in.rows:
			if !open {
				return batch, nil
			}
			batch = append(batch, r)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// release makes room for what comes after a batch.
func (in *intake) release(batch []row) {
	var bytes int64
	for _, r := range batch {
		bytes += r.bytes
	}
	in.room.Release(bytes)
}

// stop ends the intake once the stream ends.
func (in *intake) stop() { close(in.gone) }
