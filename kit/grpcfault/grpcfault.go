// Package grpcfault is the one table between faults and gRPC statuses, in both directions (AIP-193, google.rpc error
// details). What it does not know it hides: the text of an error that is not a fault never leaves the process.
package grpcfault

import (
	"context"
	"errors"
	"maps"
	"time"

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

var toKind = func() map[codes.Code]fault.Kind {
	m := make(map[codes.Code]fault.Kind, len(toCode))
	for k, c := range toCode {
		m[c] = k
	}
	return m
}()

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

// FromError returns the fault that a status error of a peer stands for: errors.Is holds for a fault of the same kind
// and reason. Faults pass through, nil stays nil; what is neither a fault nor a status is an internal one.
func FromError(err error) *fault.Fault {
	if err == nil {
		return nil
	}
	if f, ok := fault.As(err); ok {
		return f
	}
	st, ok := status.FromError(err)
	if !ok {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return errDeadline.Because(err)
		case errors.Is(err, context.Canceled):
			return errCanceled.Because(err)
		}
		return errInternal.Because(err)
	}
	return FromStatus(st.Proto())
}

// FromStatus returns the fault that a status stands for, nil for OK. A status without ErrorInfo, as the transport
// makes it, gets the name of its code as its reason and the domain policy.v1.
func FromStatus(p *spb.Status) *fault.Fault {
	st := status.FromProto(p)
	if st.Code() == codes.OK {
		return nil
	}
	kind := toKind[st.Code()] // Unknown, and whatever comes, is Internal
	reason, domain := reasonOf[kind], fault.Domain
	var (
		md         map[string]string
		violations []*errdetails.BadRequest_FieldViolation
		retry      time.Duration
	)
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, domain, md = d.GetReason(), d.GetDomain(), maps.Clone(d.GetMetadata())
		case *errdetails.BadRequest:
			violations = d.GetFieldViolations()
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		}
	}
	f := fault.New(kind, reason, st.Message()).WithDomain(domain)
	for k, v := range md {
		f = f.With(k, v)
	}
	for _, v := range violations {
		f = f.WithViolation(v.GetField(), v.GetReason(), v.GetDescription())
	}
	if retry > 0 {
		f = f.WithRetryAfter(retry)
	}
	return f
}

// reasonOf names what has no reason of its own: what grpc itself answers.
var reasonOf = map[fault.Kind]string{
	fault.Internal:           "INTERNAL",
	fault.InvalidArgument:    "INVALID_REQUEST",
	fault.NotFound:           "NOT_FOUND",
	fault.AlreadyExists:      "ALREADY_EXISTS",
	fault.FailedPrecondition: "FAILED_PRECONDITION",
	fault.Aborted:            "ABORTED",
	fault.PermissionDenied:   "CALLER_REFUSED",
	fault.Unauthenticated:    "CREDENTIALS_MISSING",
	fault.ResourceExhausted:  "RESOURCE_EXHAUSTED",
	fault.Unavailable:        "UPSTREAM_UNAVAILABLE",
	fault.OutOfRange:         "OUT_OF_RANGE",
	fault.DeadlineExceeded:   "DEADLINE_EXCEEDED",
	fault.Canceled:           "CANCELED",
	fault.Unimplemented:      "UNIMPLEMENTED",
	fault.DataLoss:           "DATA_LOSS",
}
