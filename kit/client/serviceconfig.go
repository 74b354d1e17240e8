package client

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/policy"
)

// The shape of a gRPC service config (grpc/service_config.proto), as far as we use it.
type (
	serviceConfig struct {
		LoadBalancingConfig []map[string]struct{} `json:"loadBalancingConfig"`
		HealthCheckConfig   healthCheckConfig     `json:"healthCheckConfig"`
		RetryThrottling     retryThrottling       `json:"retryThrottling"`
		MethodConfig        []methodConfig        `json:"methodConfig"`
	}
	healthCheckConfig struct {
		ServiceName string `json:"serviceName"`
	}
	retryThrottling struct {
		MaxTokens  int     `json:"maxTokens"`
		TokenRatio float64 `json:"tokenRatio"`
	}
	methodConfig struct {
		Name         []methodName `json:"name"`
		WaitForReady bool         `json:"waitForReady"`
		Timeout      string       `json:"timeout,omitempty"`
		MaxRequest   int          `json:"maxRequestMessageBytes,omitempty"`
		RetryPolicy  *retryPolicy `json:"retryPolicy,omitempty"`
	}
	methodName struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	retryPolicy struct {
		MaxAttempts          int      `json:"maxAttempts"`
		InitialBackoff       string   `json:"initialBackoff"`
		MaxBackoff           string   `json:"maxBackoff"`
		BackoffMultiplier    float64  `json:"backoffMultiplier"`
		RetryableStatusCodes []string `json:"retryableStatusCodes"`
	}
)

// ServiceConfig returns the gRPC service config (JSON) that the policies ask of a client: timeouts of unary methods, the
// largest request, retries where the policy allows them, replicas in turn with health checks, and a brake on retries when
// most of them fail (gRFC A6). Clients in other languages can be given it too. It has no hedges, which grpc-go does not do:
// Dial does them.
func ServiceConfig(table policy.Table) (string, error) {
	cfg := serviceConfig{
		LoadBalancingConfig: []map[string]struct{}{{"round_robin": {}}},
		RetryThrottling:     retryThrottling{MaxTokens: maxTokens, TokenRatio: tokenRatio},
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		m := table[name]
		service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		mc := methodConfig{Name: []methodName{{service, method}}, MaxRequest: m.MaxRequestBytes}
		if !m.ClientStream && !m.ServerStream {
			mc.Timeout = seconds(m.Timeout)
		}
		if r := m.Retry; r != nil {
			mc.RetryPolicy = &retryPolicy{
				MaxAttempts: r.Attempts, InitialBackoff: seconds(r.InitialBackoff), MaxBackoff: seconds(r.MaxBackoff),
				BackoffMultiplier: r.Multiplier,
			}
			for _, k := range r.Codes {
				mc.RetryPolicy.RetryableStatusCodes = append(mc.RetryPolicy.RetryableStatusCodes, k.String())
			}
		}
		cfg.MethodConfig = append(cfg.MethodConfig, mc)
	}
	b, err := json.Marshal(cfg)
	return string(b), err
}

// seconds writes a duration as proto3 JSON does.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }
