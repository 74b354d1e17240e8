package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// collector takes the spans that the path sends (OTLP, over gRPC or HTTP), counts the exports, and forgets them.
type collector struct {
	exports atomic.Int64
	listen  net.Listener
	server  http.Server
	ended   chan error
}

func newCollector() (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &collector{listen: l, ended: make(chan error, 1)}
	c.server.Handler = c
	c.server.Protocols = new(http.Protocols)
	c.server.Protocols.SetHTTP1(true)
	c.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { c.ended <- c.server.Serve(l) }()
	return c, nil
}

// ServeHTTP implements http.Handler: everything is taken.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the exporter has gone
	}
	c.exports.Add(1)
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", "application/x-protobuf")
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(make([]byte, 5)) // an empty message; an exporter that has gone does not read it
	w.Header().Set("Grpc-Status", "0")
}

// environment returns what makes a server sample one call in a hundred and send its spans here.
func (c *collector) environment() []string {
	return []string{
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_INSECURE=true",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.listen.Addr().String(),
	}
}

func (c *collector) close(ctx context.Context) error {
	if err := c.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("stop the collector: %w", err)
	}
	if err := <-c.ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("collector: %w", err)
	}
	return nil
}
