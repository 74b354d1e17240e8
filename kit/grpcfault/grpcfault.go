// Package grpcfault is the one table between faults and gRPC statuses, in both directions (AIP-193, google.rpc error
// details). What it does not know it hides: the text of an error that is not a fault never leaves the process.
package grpcfault

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/concordat-dev/concordat/kit/fault"
)

// What stands for an error that says nothing safe about itself.
var (
	errInternal = fault.New(fault.Internal, "INTERNAL", "internal error").WithDomain(fault.Domain)
	errDeadline = fault.New(fault.DeadlineExceeded, "DEADLINE_EXCEEDED", "the call ran out of time").WithDomain(fault.Domain)
	errCanceled = fault.New(fault.Canceled, "CANCELED", "the caller went away").WithDomain(fault.Domain)
)

var toCode = map[fault.Kind]codes.Code{
	fault.Internal:           codes.Internal,
	fault.InvalidArgument:    codes.InvalidArgument,
	fault.NotFound:           codes.NotFound,
	fault.AlreadyExists:      codes.AlreadyExists,
	fault.FailedPrecondition: codes.FailedPrecondition,
	fault.Aborted:            codes.Aborted,
	fault.PermissionDenied:   codes.PermissionDenied,
	fault.Unauthenticated:    codes.Unauthenticated,
	fault.ResourceExhausted:  codes.ResourceExhausted,
	fault.Unavailable:        codes.Unavailable,
	fault.OutOfRange:         codes.OutOfRange,
	fault.DeadlineExceeded:   codes.DeadlineExceeded,
	fault.Canceled:           codes.Canceled,
	fault.Unimplemented:      codes.Unimplemented,
	fault.DataLoss:           codes.DataLoss,
}

// Code returns the gRPC code of a kind.
func Code(k fault.Kind) codes.Code {
	if c, ok := toCode[k]; ok {
		return c
	}
	return codes.Internal
}

// Public returns the fault that a caller may see of err, whose own faults have the given domain (the proto package of
// the service). A fault of another service is as internal as any other error: it was not meant for this caller.
func Public(err error, domain string) *fault.Fault {
	f, ok := fault.As(err)
	if !ok {
		switch fault.KindOf(err) {
		case fault.DeadlineExceeded:
			return errDeadline.Because(err)
		case fault.Canceled:
			return errCanceled.Because(err)
		default:
			return errInternal.Because(err)
		}
	}
	switch {
	case f.Kind() == fault.Internal:
		return errInternal.Because(err)
	case f.Domain() == "":
		return f.WithDomain(domain)
	case f.Domain() == domain, f.Domain() == fault.Domain:
		return f
	default:
		return errInternal.Because(err)
	}
}

// Status returns what the wire carries of err: code, text and details of the fault that Public finds, with extra
// details such as a RequestInfo. It returns nil for nil.
func Status(err error, domain string, extra ...protoadapt.MessageV1) *spb.Status {
	if err == nil {
		return nil
	}
	f := Public(err, domain)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: f.Reason(), Domain: f.Domain(), Metadata: f.Metadata()}}
	if vs := f.Violations(); len(vs) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range vs {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: v.Field, Description: v.Text, Reason: v.Rule,
			})
		}
		details = append(details, bad)
	}
	if d := f.RetryAfter(); d > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	st := status.New(Code(f.Kind()), f.Text())
	if with, err := st.WithDetails(append(details, extra...)...); err == nil {
		st = with
	}
	return st.Proto()
}
