package telemetry_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/telemetry"
)

func TestWhatIsCarriedOnIsBounded(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	state := func(size int) string { return "vendor=" + strings.Repeat("x", size-len("vendor=")) }
	value := func(size int) string { return strings.Repeat("v", size) }
	const name, other = "x-flags", "x-other"
	for what, tc := range map[string]struct {
		in   []string // metadata
		want []string
	}{
		"a state of 512 bytes":             {[]string{"tracestate", state(512)}, []string{"tracestate=" + state(512)}},
		"a state of 513 bytes":             {[]string{"tracestate", state(513)}, nil},
		"two states that are 513 together": {[]string{"tracestate", state(256), "tracestate", state(256)}, nil},
		"metadata of 1 KiB":                {[]string{name, value(1024 - len(name))}, []string{name + "=" + value(1024-len(name))}},
		"metadata of a byte more":          {[]string{name, value(1025 - len(name))}, nil},
		"metadata of 1 KiB in all":         {[]string{name, value(500), other, value(1024 - 500 - len(name) - len(other))}, []string{name + "=" + value(500), other + "=" + value(1024-500-len(name)-len(other))}},
		"metadata of a byte more in all":   {[]string{name, value(500), other, value(1025 - 500 - len(name) - len(other))}, []string{name + "=" + value(500)}},
		"metadata that is not declared":    {[]string{"x-more", "1"}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := config(&bytes.Buffer{})
			cfg.Propagate = []string{name, other}
			tele, err := telemetry.New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			service, err := tele.Service("test")
			if err != nil {
				t.Fatal(err)
			}
			header := metadata.Pairs(append([]string{"traceparent", parent}, tc.in...)...)
			var trace telemetry.Trace
			ctx := metadata.NewIncomingContext(t.Context(), header)
			ctx = telemetry.NewContext(service.Begin(ctx, &trace, service.Method(telemetry.MethodConfig{FullName: "/x.v1.X/Y"}), header, time.Now()), &trace)
			out, _ := metadata.FromOutgoingContext(telemetry.Outgoing(ctx))
			if got := out.Get("traceparent"); !slices.Equal(got, []string{parent}) {
				t.Errorf("traceparent %v", got)
			}
			var got []string
			for _, key := range []string{"tracestate", name, other, "x-more"} {
				for _, v := range out.Get(key) {
					got = append(got, key+"="+v)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("carried on: %q, want %q", got, tc.want)
			}
		})
	}
}
