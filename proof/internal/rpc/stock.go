package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"github.com/golang-jwt/jwt/v5"
	metrics "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	bearer "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	validation "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/token"
)

// stockChain returns what a service is given that takes the libraries of the ecosystem as their documentation shows them,
// for what the path does too: spans of 1 % of the calls (otelgrpc), counters and a histogram (prometheus), a line when a
// call starts and one when it ends (logging, its default), recovery, a verified access token (auth; the library keeps
// nothing of a token, so each call verifies it), and the rules of the request (protovalidate). Spans are gathered in
// batches and dropped where they would leave, so that no collector is part of the comparison.
func stockChain(key token.Key, log io.Writer) (options []grpc.ServerOption, shutdown func(), err error) {
	registry := prometheus.NewRegistry()
	counted := metrics.NewServerMetrics(metrics.WithServerHandlingTimeHistogram())
	if err := registry.Register(counted); err != nil {
		return nil, nil, fmt.Errorf("register metrics: %w", err)
	}
	validator, err := protovalidate.New()
	if err != nil {
		return nil, nil, fmt.Errorf("make a validator: %w", err)
	}
	spans := trace.NewTracerProvider(
		trace.WithBatcher(dropped{}),
		trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(0.01))),
	)
	text := slog.New(slog.NewTextHandler(log, nil))
	line := logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		text.Log(ctx, slog.Level(level), message, fields...)
	})
	verify := verifyToken(key)
	return []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(spans), otelgrpc.WithPropagators(propagation.TraceContext{}),
		)),
		grpc.ChainUnaryInterceptor(
			counted.UnaryServerInterceptor(),
			logging.UnaryServerInterceptor(line),
			recovery.UnaryServerInterceptor(),
			bearer.UnaryServerInterceptor(verify),
			validation.UnaryServerInterceptor(validator),
		),
	}, func() { _ = spans.Shutdown(context.Background()) }, nil
}

// stockClaims are those of an access token.
type stockClaims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

// verifyToken returns what auth asks of each call: signature, issuer, audience, expiry and scope.
func verifyToken(key token.Key) bearer.AuthFunc {
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(),
	)
	return func(ctx context.Context) (context.Context, error) {
		text, err := bearer.AuthFromMD(ctx, "bearer")
		if err != nil {
			return nil, err
		}
		var claims stockClaims
		_, err = parser.ParseWithClaims(text, &claims, func(t *jwt.Token) (any, error) {
			if t.Header["kid"] != key.ID {
				return nil, errors.New("unknown key")
			}
			return key.Public, nil
		})
		if err != nil {
			return nil, status.Error(codes.Unauthenticated, "the access token is not valid")
		}
		if !slices.Contains(strings.Fields(claims.Scope), scope) {
			return nil, status.Error(codes.PermissionDenied, "the access token lacks a scope")
		}
		return context.WithValue(ctx, claimsKey{}, &claims), nil
	}
}

type claimsKey struct{}

// dropped takes spans and forgets them.
type dropped struct{}

// ExportSpans implements trace.SpanExporter.
func (dropped) ExportSpans(context.Context, []trace.ReadOnlySpan) error { return nil }

// Shutdown implements trace.SpanExporter.
func (dropped) Shutdown(context.Context) error { return nil }
