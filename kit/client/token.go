package client

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// Token returns the credentials of calls that are made as a user: the access token that source returns, asked for once
// a call and so best cached by source, which must end when its context does. A call over a connection that is not
// encrypted is not sent. Where source fails, the call ends with its fault, or, where its error is none, UNAUTHENTICATED
// with the error as the cause.
func Token(source func(ctx context.Context) (string, error)) credentials.PerRPCCredentials {
	return tokenSource(source)
}

type tokenSource func(ctx context.Context) (string, error)

func (s tokenSource) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	text, err := s(ctx)
	if err == nil && text == "" {
		err = errors.New("there is none")
	}
	if err != nil {
		if f, ok := fault.As(err); ok {
			return nil, status.FromProto(grpcfault.Status(f, f.Domain())).Err()
		}
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Error(codes.Unauthenticated, "access token: "+err.Error())
	}
	return map[string]string{"authorization": "Bearer " + text}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (tokenSource) RequireTransportSecurity() bool { return true }
