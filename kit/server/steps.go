package server

import (
	"context"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/token"
)

// faults turns what comes from below into a status, with the id of the request among its details and without the secrets of
// the call.
func faults(*Server) step {
	return step{
		name: "faults",
		around: func(next handler) handler {
			return func(c *call) error {
				err := next(c)
				if err == nil {
					return nil
				}
				domain := fault.Domain
				if c.method != nil {
					domain = c.method.Package
				}
				if c.method != nil && c.method.Framework {
					err = frameworkFault(err)
				}
				if unimplemented(c, err) {
					err = errUnknownMethod.Because(err)
				}
				// Of a context only the cause is interesting: that the token expired, that the deadline passed.
				if kind := fault.KindOf(err); kind == fault.Canceled || kind == fault.DeadlineExceeded {
					if cause, ok := fault.As(context.Cause(c)); ok {
						err = cause
					}
				}
				c.fault = grpcfault.Public(err, domain)
				if wait := pushback(c, c.fault); wait != "" {
					c.stream.SetTrailer(metadata.MD{pushbackTrailer: {wait}})
				}
				return status.FromProto(conceal(cleaner(c), grpcfault.Status(err, domain, &errdetails.RequestInfo{RequestId: c.RequestID}))).Err()
			}
		},
	}
}

// unimplemented reports whether err is the answer of the stub that is generated for a method nobody wrote. The text is that of
// protoc-gen-go-grpc 1.6: TestAMethodThatNobodyWroteIsUnimplemented fails where it changes.
func unimplemented(c *call, err error) bool {
	st, ok := err.(interface{ GRPCStatus() *status.Status })
	if !ok || c.method == nil || st.GRPCStatus().Code() != codes.Unimplemented {
		return false
	}
	_, name, _ := strings.Cut(c.name[1:], "/")
	return st.GRPCStatus().Message() == "method "+name+" not implemented"
}

// frameworkFault returns the fault of an answer of grpc-go's handlers with its text, which tells nothing of ours.
func frameworkFault(err error) error {
	if _, ours := fault.As(err); ours {
		return err
	}
	f := grpcfault.FromError(err)
	if st, ok := status.FromError(err); ok {
		return f.WithText(st.Message())
	}
	return f
}

// recoverPanic keeps a panic inside its call. What a unary handler returned is sent here, where what follows is bound no more: who
// reads slowly holds nobody's place.
func recoverPanic(*Server) step {
	return step{name: "recover", around: func(next handler) handler {
		return func(c *call) error {
			return safely(func() error {
				if err := next(c); err != nil || c.method.ClientStream || c.method.ServerStream {
					return err
				}
				return c.stream.SendMsg(c.reply)
			})
		}
	}}
}

const (
	// margin is what a caller keeps of its deadline, so that our answer reaches it before it gives up.
	margin = 20 * time.Millisecond
	// hopeless is the shortest deadline worth starting for.
	hopeless = 2 * time.Millisecond
)

var (
	errHopeless = fault.New(fault.DeadlineExceeded, "DEADLINE_TOO_SHORT", "what is left of the deadline is too short").WithDomain(fault.Domain)
	errTimeout  = fault.New(fault.DeadlineExceeded, "DEADLINE_EXCEEDED", "the call ran out of time").WithDomain(fault.Domain)
)

// deadline bounds the call: by the policy's timeout, and by what the caller has left less a margin (20 ms, or a quarter
// where less than 80 ms is left).
func deadline(*Server) step {
	return step{name: "deadline", around: func(next handler) handler {
		return func(c *call) error {
			if c.method == nil {
				return next(c) // refused below
			}
			now, limit := time.Now(), c.method.Timeout
			if d, ok := c.Deadline(); ok {
				left := d.Sub(now)
				if left < hopeless {
					return errHopeless
				}
				limit = min(limit, left-min(margin, left/4))
			}
			c.until(now.Add(limit), errTimeout)
			return next(c)
		}
	}}
}

var errUnknownMethod = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "there is no such method").WithDomain(fault.Domain)

// authenticate finds out who calls: the certificate of the peer, and the access token where the method looks at one.
func authenticate(s *Server) step {
	return step{name: "authenticate", around: func(next handler) handler {
		return func(c *call) error {
			if c.method == nil {
				return errUnknownMethod
			}
			c.credentials = s.credentials(c)
			return next(c)
		}
	}}
}

// authorize asks the policy whether that caller may call, and of each message whether it speaks of what is theirs. A
// stream ends when its token does, or is revoked.
func authorize(s *Server) step {
	return step{
		name: "authorize",
		around: func(next handler) handler {
			return func(c *call) error {
				var err error
				if c.Caller, err = c.method.Decide(c.credentials); err != nil {
					return err
				}
				if user := c.Caller.User; user != nil && (c.method.ClientStream || c.method.ServerStream) {
					c.until(time.Now().Add(user.ExpiresAt.Sub(s.cfg.Clock.Now())), token.ErrExpired)
					defer s.untilRevoked(c)()
				}
				return next(c)
			}
		},
		message: func(c *call, m proto.Message) error {
			err := c.method.CheckSelf(c.Caller, m)
			if err != nil {
				// Somebody who misspells their own id is told that, and not that it is another's.
				if broken := s.validator.check(m); broken != nil {
					return broken
				}
			}
			return err
		},
	}
}

// receive waits for the message of a client that does not stream. It comes after whoever may not call was turned away, and before
// the call takes a place among those that are at work, so that who sends slowly holds nobody's.
func receive(*Server) step {
	return step{name: "receive", around: func(next handler) handler {
		return func(c *call) error {
			if !c.method.ClientStream {
				if err := c.stream.await(); err != nil {
					return err
				}
			}
			return next(c)
		}
	}}
}

var errInvalid = fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").WithDomain(fault.Domain)

// validate holds each message against the rules of its .proto, and to having the key that the method's policy says it has. Of a
// stream of rows the handler does that, because a row fails alone.
func validate(s *Server) step {
	return step{name: "validate", message: func(c *call, m proto.Message) error {
		if err := s.validator.check(m); err != nil {
			return err
		}
		if k := c.method.Key; k != nil && !c.method.ClientStream && k.Get(m.ProtoReflect()) == "" {
			return errInvalid.WithViolation(k.Path, "idempotency_key.required", "must be set: it makes a repetition the same request")
		}
		return nil
	}}
}

// serious reports whether a code means that something of ours is broken, and not that a caller erred.
func serious(code codes.Code) bool {
	return code == codes.Internal || code == codes.Unknown || code == codes.DataLoss
}
