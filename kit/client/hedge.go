package client

import (
	"context"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/policy"
)

const (
	// previousAttempts tells the server that a call was sent before (gRFC A6).
	previousAttempts = "grpc-previous-rpc-attempts"
	// pushbackTrailer is when the server wants a call to be repeated, in milliseconds; what is no number of zero or more
	// means never.
	pushbackTrailer = "grpc-retry-pushback-ms"
)

// hedge sends a call, and sends it again after each delay of the policy that passes without an answer. An answer that the
// policy does not repeat counts, and so does the last one there is; the other calls are cancelled. grpc-go does not do this
// part of gRFC A6. When hedge returns, no call of it is under way and nothing reads the request any more.
func (c *caller) hedge(ctx context.Context, m *policy.Method, resp protoMessage, send func(context.Context, protoMessage, []grpc.CallOption) error, opts []grpc.CallOption) error {
	var sending sync.WaitGroup
	defer sending.Wait()
	ctx, cancel := context.WithTimeout(ctx, m.Timeout) // one for all: the service config's counts from each sending
	defer cancel()

	answers := make(chan *attempt, m.Hedge.Attempts)
	sent, open := 0, 0
	again := func() {
		ctx, a := ctx, &attempt{resp: resp.ProtoReflect().New().Interface()}
		if sent > 0 {
			ctx = metadata.AppendToOutgoingContext(ctx, previousAttempts, strconv.Itoa(sent))
		}
		sent, open = sent+1, open+1
		sending.Go(func() {
			a.err = send(ctx, a.resp, a.options(opts))
			answers <- a
		})
	}
	again()
	next := time.NewTimer(m.Hedge.Delay)
	defer next.Stop()
	more := true      // whether another one may be sent
	var last *attempt // the last answer
	for {
		var due <-chan time.Time
		if more = more && sent < m.Hedge.Attempts; more {
			due = next.C
		}
		var done <-chan struct{}
		if open == 0 { // the open ones end with the context and say so
			done = ctx.Done()
		}
		select {
		case <-due:
			if more = c.throttle.allows(); more {
				again()
				next.Reset(m.Hedge.Delay)
			} else if open == 0 {
				return last.deliver(resp, opts)
			}
		case <-done:
			last.err = status.FromContextError(ctx.Err()).Err()
			return last.deliver(resp, opts)
		case last = <-answers:
			open--
			_ = c.throttle.counted(last.err)
			if last.err == nil || !m.Repeats(grpcfault.FromError(last.err).Kind()) {
				return last.deliver(resp, opts)
			}
			wait, never := last.pushback()
			deadline, _ := ctx.Deadline()
			more = more && sent < m.Hedge.Attempts && !never && wait < time.Until(deadline) && c.throttle.allows()
			if !more && open == 0 {
				return last.deliver(resp, opts)
			}
			next.Reset(wait)
		}
	}
}

// attempt is one sending of a call, with a place of its own for everything that an answer consists of.
type attempt struct {
	resp            protoMessage
	err             error
	header, trailer metadata.MD
	peer            peer.Peer
}

// options returns those of the call, with what tells of the answer turned to the attempt.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	own := make([]grpc.CallOption, 0, len(opts)+3)
	for _, o := range opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
		default:
			own = append(own, o)
		}
	}
	return append(own, grpc.Header(&a.header), grpc.Trailer(&a.trailer), grpc.Peer(&a.peer))
}

// deliver makes the attempt the answer to the call.
func (a *attempt) deliver(resp protoMessage, opts []grpc.CallOption) error {
	if a.err == nil {
		proto.Reset(resp)
		to := resp.ProtoReflect()
		a.resp.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			to.Set(fd, v)
			return true
		})
		to.SetUnknown(a.resp.ProtoReflect().GetUnknown())
	}
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = a.header
		case grpc.TrailerCallOption:
			*o.TrailerAddr = a.trailer
		case grpc.PeerCallOption:
			*o.PeerAddr = a.peer
		case grpc.OnFinishCallOption:
			o.OnFinish(a.err)
		}
	}
	return a.err
}

// pushback returns how long the server wants clients to wait, zero where it says nothing, or that it wants no more calls.
func (a *attempt) pushback() (wait time.Duration, never bool) {
	said := a.trailer.Get(pushbackTrailer)
	if len(said) == 0 {
		return 0, false
	}
	ms, err := strconv.ParseUint(said[0], 10, 31)
	if err != nil || len(said) > 1 {
		return 0, true
	}
	return time.Duration(ms) * time.Millisecond, false
}
