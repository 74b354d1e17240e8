package grpcfault

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/fault"
)

var toKind = func() map[codes.Code]fault.Kind {
	m := make(map[codes.Code]fault.Kind, len(toCode))
	for k, c := range toCode {
		m[c] = k
	}
	return m
}()

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

// FromStatus returns the fault that a status stands for, nil for OK. The fault is valid (fault.Fault.Valid), whatever the
// peer sent: details that are malformed are left out. A status without ErrorInfo is no answer of ours but one that the
// transport made: it gets the name of its code as its reason, the domain policy.v1 and a text of ours, because the
// transport's has addresses; its own is the cause, for logs.
func FromStatus(p *spb.Status) *fault.Fault {
	st := status.FromProto(p)
	if st.Code() == codes.OK {
		return nil
	}
	kind := toKind[st.Code()] // Unknown, and whatever comes, is Internal
	var (
		info *errdetails.ErrorInfo
		bad  *errdetails.BadRequest
		from = &answer{text: strings.ToValidUTF8(st.Message(), "\uFFFD")}
		wait time.Duration
	)
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if info == nil && isReason(d.GetReason()) && d.GetDomain() != "" {
				info = d
			}
		case *errdetails.BadRequest:
			bad = d
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			from.requestID = d.GetRequestId()
		}
	}
	f := fault.New(kind, transport[kind].reason, transport[kind].text).WithDomain(fault.Domain)
	if info != nil {
		f = fault.New(kind, info.GetReason(), transport[kind].text).WithDomain(info.GetDomain())
		if from.text != "" {
			f = f.WithText(from.text)
		}
		from.text = "" // it is the fault's
		for k, v := range info.GetMetadata() {
			if isKey(k) {
				f = f.With(k, v)
			}
		}
	}
	for _, v := range bad.GetFieldViolations() {
		if v.GetField() != "" {
			f = f.WithViolation(v.GetField(), v.GetReason(), v.GetDescription())
		}
	}
	if *from != (answer{}) {
		f = f.Because(from)
	}
	return f.WithRetryAfter(wait)
}

// isReason and isKey check the forms that google.rpc.ErrorInfo asks for, as fault.Fault.Valid does.
func isReason(s string) bool {
	if len(s) < 3 || len(s) > 63 || !isUpper(s[0]) || s[len(s)-1] == '_' {
		return false
	}
	for _, c := range []byte(s) {
		if !isUpper(c) && !isDigit(c) && c != '_' {
			return false
		}
	}
	return true
}

func isKey(s string) bool {
	if len(s) < 2 || len(s) > 64 || !isUpper(s[0]&^0x20) {
		return false
	}
	for _, c := range []byte(s) {
		if !isUpper(c&^0x20) && !isDigit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// RequestID returns the id that the peer gave the request whose answer err is, as its log has it; "" where err is no
// answer of a peer, or one without it. The id is in the text that logs see (Error), and not in what a caller sees.
func RequestID(err error) string {
	var a *answer
	if errors.As(err, &a) {
		return a.requestID
	}
	return ""
}

// answer is the cause of a fault that came from a peer.
type answer struct {
	requestID string
	text      string // what the transport said
}

func (a *answer) Error() string {
	switch {
	case a.requestID == "":
		return a.text
	case a.text == "":
		return "answer to request " + a.requestID
	default:
		return a.text + " (answer to request " + a.requestID + ")"
	}
}

// transport names what has no reason of its own: what grpc itself answers.
var transport = map[fault.Kind]struct{ reason, text string }{
	fault.Internal:           {"INTERNAL", "internal error"},
	fault.InvalidArgument:    {"INVALID_REQUEST", "the request is invalid"},
	fault.NotFound:           {"NOT_FOUND", "there is no such thing"},
	fault.AlreadyExists:      {"ALREADY_EXISTS", "it exists already"},
	fault.FailedPrecondition: {"FAILED_PRECONDITION", "the state of the system does not allow it"},
	fault.Aborted:            {"ABORTED", "a concurrent change came between"},
	fault.PermissionDenied:   {"CALLER_REFUSED", "the method is not for this caller"},
	fault.Unauthenticated:    {"CREDENTIALS_MISSING", "credentials are required"},
	fault.ResourceExhausted:  {"RESOURCE_EXHAUSTED", "a limit is used up"},
	fault.Unavailable:        {"UPSTREAM_UNAVAILABLE", "a service does not answer"},
	fault.OutOfRange:         {"OUT_OF_RANGE", "the request reaches past what there is"},
	fault.DeadlineExceeded:   {"DEADLINE_EXCEEDED", "the call ran out of time"},
	fault.Canceled:           {"CANCELED", "the caller went away"},
	fault.Unimplemented:      {"UNIMPLEMENTED", "there is no such operation"},
	fault.DataLoss:           {"DATA_LOSS", "stored data is damaged"},
}
