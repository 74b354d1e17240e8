package server_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

func TestACallThatGRPCRefusesByItselfIsCountedAndLogged(t *testing.T) {
	const early = `concordat_calls_refused_early_total{service="test"}`
	for name, tc := range map[string]struct {
		more    []string
		refused bool
	}{
		"a good call":                      {nil, false},
		"a call that the kit refuses":      {[]string{"grpc-timeout", "1n"}, false},
		"a timeout that is none":           {[]string{"grpc-timeout", "soon"}, true},
		"binary metadata that is none":     {[]string{"x-bin", "!"}, true},
		"two hosts":                        {[]string{"host", "a", "host", "b"}, true},
		"headers beyond the bound":         {[]string{"x-long", strings.Repeat("\x7e", 20<<10)}, true},
		"headers of twice that and beyond": {[]string{"x-long", strings.Repeat("\x7e", 100<<10)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tt := collecting(t)
			h, address := onPort(t, echo.Handlers{}, func(o *kittest.Options) { o.Telemetry = tt.tele })
			w := dialWire(t, h, address)
			w.call(1, echo.Public, message(false, nil)).want(t, codes.OK)
			_ = w.call(3, echo.Public, message(false, nil), tc.more...)
			_ = w.conn.Close() // the server may have closed it
			if tc.refused {
				tt.until(early, 1)
				logged(t, h, `"calls refused before they began","address":"127.0.0.1","refused":1,"peer":"orders"`)
				return
			}
			logged(t, h, `"received":1`)
			if err := h.Stop(); err != nil { // every connection is closed
				t.Fatal(err)
			}
			if n := tt.series()[early]; n != 0 || strings.Contains(h.Log.String(), "before they began") {
				t.Errorf("%v calls are counted that did begin", n)
			}
		})
	}
}
