package forward

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// What the edge answers by itself; policy.v1.ErrorReason says when.
var (
	// ErrUnknownMethod: the contract has no such method.
	ErrUnknownMethod = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "there is no such method").WithDomain(fault.Domain)
	// ErrMalformed: the bytes are not the message that the method takes.
	ErrMalformed = fault.New(fault.InvalidArgument, "MALFORMED_REQUEST", "the request cannot be decoded").WithDomain(fault.Domain)
	// ErrTooLarge: a message, or the body of a request, is above the limit.
	ErrTooLarge = fault.New(fault.ResourceExhausted, "MESSAGE_TOO_LARGE", "the request is larger than the edge takes").WithDomain(fault.Domain)
	// ErrCompression: the bytes are compressed in a way that is not known.
	ErrCompression = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "the message is compressed in a way that is not known here").WithDomain(fault.Domain)
	// ErrUpstream: the service does not answer. It carries the name of the service as upstream.
	ErrUpstream = fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE", "the service behind the edge does not answer").WithDomain(fault.Domain)

	errNoMessage      = ErrMalformed.WithText("the call has no request message")
	errHeaderTooLarge = ErrMalformed.WithText("the authorization header is too large")
	errUpstreamLarge  = ErrTooLarge.WithText("a message is larger than what passes between the edge and the service")
)

// upstreamFault returns the fault of a call that the transport between here and the service ended, whose text may name
// addresses and certificates. It returns nil for what a service itself has said, which passes as it is.
func upstreamFault(err error, upstream string) *fault.Fault {
	st := status.Convert(err)
	if len(st.Proto().GetDetails()) > 0 {
		return nil
	}
	switch st.Code() {
	case codes.NotFound, codes.InvalidArgument, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted, codes.OutOfRange:
		return nil // the transport never says these
	case codes.Unavailable:
		return ErrUpstream.With("upstream", upstream).Because(err)
	case codes.ResourceExhausted:
		return errUpstreamLarge.With("upstream", upstream).Because(err)
	case codes.Unimplemented:
		return ErrUnknownMethod.Because(err)
	case codes.Unauthenticated, codes.PermissionDenied:
		return grpcfault.FromStatus(st.Proto()).WithText("the call was refused").Because(err)
	case codes.DeadlineExceeded, codes.Canceled:
		return contextFault(st.Code()).Because(err)
	default:
		return broken(err)
	}
}

// broken returns the fault of something that is not the caller's doing.
func broken(err error) *fault.Fault {
	return fault.New(fault.Internal, "INTERNAL", "internal error").WithDomain(fault.Domain).Because(err)
}

// contextFault returns the fault of a call that ended because its context did.
func contextFault(code codes.Code) *fault.Fault {
	err := context.Canceled
	if code == codes.DeadlineExceeded {
		err = context.DeadlineExceeded
	}
	return grpcfault.Public(err, fault.Domain)
}

// ReceiveFault returns the fault of a call whose next request message could not be received.
func ReceiveFault(err error) *fault.Fault {
	switch code := status.Code(err); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return grpcfault.Public(err, fault.Domain)
	case code == codes.Canceled, code == codes.DeadlineExceeded:
		return contextFault(code).Because(err)
	case code == codes.ResourceExhausted:
		return ErrTooLarge.Because(err)
	default:
		return ErrMalformed.Because(err)
	}
}

// statusOf returns what the wire carries of an error that is ours, with the id of the request among the details.
func statusOf(err error, requestID string) *spb.Status {
	return grpcfault.Status(err, fault.Domain, &errdetails.RequestInfo{RequestId: requestID})
}
