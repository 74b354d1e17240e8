package rpc

import (
	"bytes"
	"net/http"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestTheCollectorTakesSpansOverGRPCAndHTTP(t *testing.T) {
	c, err := newCollector()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(c.listen.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	const method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	if err := conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	answer, err := http.Post("http://"+c.listen.Addr().String()+"/v1/traces", "application/x-protobuf", bytes.NewReader(nil))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("over HTTP: %v, %v", answer, err)
	}
	if err == nil {
		_ = answer.Body.Close()
	}
	if n := c.exports.Load(); n != 2 {
		t.Errorf("counted %d exports of 2", n)
	}
	if env := c.environment(); !slices.Contains(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+c.listen.Addr().String()) {
		t.Errorf("the environment names another place: %v", env)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := c.close(t.Context()); err != nil {
		t.Error(err)
	}
}
