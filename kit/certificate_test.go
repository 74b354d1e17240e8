package kit_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/pki"
)

func TestAServiceRenewsItsDevelopmentCertificateWhileItServes(t *testing.T) {
	clk := clocktest.New(time.Now())
	h := host(t, clk, echo.Handlers{}, func(context.Context) error { return nil })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	first := h.Identity.NotAfter()
	clk.Advance(first.Sub(clk.Now()) * 9 / 10)
	for end := time.Now().Add(10 * time.Second); !h.Identity.NotAfter().After(first); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("the certificate is still the first, and ends %s", first)
		}
	}
	if err := call(t.Context(), t, h, echo.Public); err != nil {
		t.Errorf("with the new one: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheCertificateOfFilesIsThatOfTheService(t *testing.T) {
	clk := clocktest.New(time.Now())
	dev, err := pki.NewDevelopment(t.TempDir(), "concordat", clk)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Ensure(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	files := dev.Files("orders")
	common := kit.Common{TLSCA: files.CA, TLSCert: files.Cert, TLSKey: files.Key, TrustDomain: "concordat"}
	id, err := common.Identity(t.Context(), "orders", clk, slog.New(slog.DiscardHandler))
	if err != nil || id.Name() != "orders" {
		t.Fatalf("%v, %v", id, err)
	}
	if _, err := common.Identity(t.Context(), "users", clk, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("with that of another: %v", err)
	}
}
