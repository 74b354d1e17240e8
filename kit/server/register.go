package server

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // what clients may compress with; grpc-go answers in kind
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// registrar registers services such that a request which the transport cannot read ends with a fault of ours: in the log
// and the metrics an error of the caller, where grpc-go has INTERNAL for most. On the wire it is grpc-go's own status,
// which is written before anybody can say otherwise; its texts tell of the message alone. (Bytes that are not the
// message get through to the path: the codec sees to that.)
type registrar struct{ grpc.ServiceRegistrar }

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	ours := *desc
	ours.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		ours.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler: func(srv any, ctx context.Context, read func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
				return m.Handler(srv, ctx, func(v any) error {
					err := read(v)
					if c := callFrom(ctx); err != nil && c != nil {
						c.fault = unread(ctx, err)
						return status.FromProto(grpcfault.Status(c.fault, fault.Domain)).Err()
					}
					return err
				}, in)
			},
		}
	}
	r.ServiceRegistrar.RegisterService(&ours, impl)
}

// unread returns the fault of a message that the transport could not read.
func unread(ctx context.Context, err error) *fault.Fault {
	if f, ok := fault.As(context.Cause(ctx)); ok {
		return f
	}
	f := grpcfault.FromError(err)
	switch f.Kind() {
	case fault.Canceled, fault.DeadlineExceeded, fault.Unavailable:
		return f.WithText("the call was broken off").Because(err)
	case fault.ResourceExhausted:
		return errTooLarge.Because(err)
	default:
		return errMalformed.Because(err)
	}
}

// tap refuses a call whose :path has not the form of a method's, "/service/method": grpc-go would, before anybody sees
// the call. It runs on the connection's reader and decides by the form alone.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	name := info.FullMethodName
	if len(name) > 1 && name[0] == '/' && strings.IndexByte(name[1:], '/') >= 0 {
		return ctx, nil
	}
	id := requestID(ctx, s.cfg.NewID)
	s.cfg.Log.LogAttrs(ctx, slog.LevelDebug, "call", slog.String("method", name),
		slog.String("code", codes.Unimplemented.String()), slog.String("reason", errUnknownMethod.Reason()),
		slog.String("request_id", id))
	return nil, status.FromProto(grpcfault.Status(errUnknownMethod, fault.Domain, &errdetails.RequestInfo{RequestId: id})).Err()
}
