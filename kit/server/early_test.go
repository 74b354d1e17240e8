package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
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
		"headers just within the bound":    {[]string{"x-long", strings.Repeat("\x7e", 16<<10-500)}, false},
		"headers just beyond the bound":    {[]string{"x-long", strings.Repeat("\x7e", 16<<10-50)}, true},
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

func TestAConnectionThatIsNotHTTP2IsCountedAndLogged(t *testing.T) {
	const refused = `concordat_connections_refused_total{reason="protocol",service="test"}`
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, said := range map[string]string{
		"another protocol":                 "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a greeting with a mistake":        http2.ClientPreface[:20] + "\r\n\r!" + settings,
		"a first frame that is not theirs": http2.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"a frame that is too large":        http2.ClientPreface + settings + strings.Repeat("\xff", 100),
	} {
		t.Run(name, func(t *testing.T) {
			tt := collecting(t)
			h, address := onPort(t, echo.Handlers{}, func(o *kittest.Options) { o.Telemetry = tt.tele })
			conn, err := tls.Dial("tcp", address, h.Identity("orders").ClientTLS("test"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, said); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			tt.until(refused, 1)
			logged(t, h, `"connection refused","address":"127.0.0.1","refused":1,"reason":"protocol","peer":"orders"`)
		})
	}
}
