package app

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/token"
)

// dialAuth returns a connection to auth, which connects when it is first used.
func dialAuth(target string, identity *pki.Identity, signals *telemetry.Service) (*grpc.ClientConn, error) {
	return client.Dial(client.Config{
		Target:    target,
		Server:    "auth",
		Identity:  identity,
		Telemetry: signals,
		Services: []protoreflect.ServiceDescriptor{
			authv1.File_auth_v1_auth_service_proto.Services().ByName("AuthService"),
			authv1.File_auth_v1_key_service_proto.Services().ByName("KeyService"),
		},
	})
}

// keys returns what asks auth for the keys that verify access tokens.
func keys(auth grpc.ClientConnInterface) func(context.Context) ([]token.Key, error) {
	service := authv1.NewKeyServiceClient(auth)
	return func(ctx context.Context) ([]token.Key, error) {
		resp, err := service.GetJwks(ctx, &authv1.GetJwksRequest{})
		if err != nil {
			return nil, fmt.Errorf("ask auth for its keys: %w", err)
		}
		return token.ParseSet(resp.GetKeys())
	}
}
