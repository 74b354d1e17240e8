package upstream

import (
	"context"

	"google.golang.org/grpc"
)

// Ending keeps the error that a call ended with as it came off the wire. The errors that a connection of kit/client
// returns are faults, which have no room for details that this program does not know.
type Ending struct {
	// Err is a status error, nil where the call has not failed.
	Err error
}

type endingKey struct{}

// Keep returns a context whose call, a stream over a Conn, writes its end into e. Only what opening the stream and
// receiving from it return is kept; e is written by whoever calls them.
func Keep(ctx context.Context, e *Ending) context.Context {
	return context.WithValue(ctx, endingKey{}, e)
}

// keepStatus is the innermost interceptor, below the one that turns statuses into faults.
func keepStatus(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	e, ok := ctx.Value(endingKey{}).(*Ending)
	if !ok {
		return s, err
	}
	if err != nil {
		e.Err = err
		return nil, err
	}
	return keeping{s, e}, nil
}

type keeping struct {
	grpc.ClientStream
	ending *Ending
}

func (k keeping) RecvMsg(m any) error {
	err := k.ClientStream.RecvMsg(m)
	if err != nil {
		k.ending.Err = err
	}
	return err
}
