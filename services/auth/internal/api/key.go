package api

import (
	"context"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/token"
)

// keyServer answers auth.v1.KeyService.
type keyServer struct {
	authv1.UnimplementedKeyServiceServer

	keys []token.Key
}

// GetJwks returns the public keys.
func (s *keyServer) GetJwks(context.Context, *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	resp := &authv1.GetJwksResponse{}
	for _, k := range s.keys {
		resp.Keys = append(resp.Keys, &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", X: k.X(), Kid: k.ID, Alg: "EdDSA", Use: "sig"})
	}
	return resp, nil
}
