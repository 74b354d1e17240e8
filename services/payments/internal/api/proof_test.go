package api_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

func TestTheProofOfTheLedgerNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	paid := charge(t, s, "k")
	prove := func() *paymentsv1.VerifyLedgerResponse {
		t.Helper()
		resp, err := s.ledger().VerifyLedger(limit(t), &paymentsv1.VerifyLedgerRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if resp := prove(); !resp.GetSound() || len(resp.GetFindings()) > 0 || resp.GetTransferCount() != 1 {
		t.Errorf("whole books: %v", resp)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, sqlstore.File))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`PRAGMA busy_timeout = 10000; UPDATE payments SET captured = captured - 1`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	resp := prove()
	if resp.GetSound() || len(resp.GetFindings()) == 0 {
		t.Fatalf("broken books: %v", resp)
	}
	for _, f := range resp.GetFindings() {
		if f.GetRow() != paid.GetPaymentId() || f.GetRule() == "" {
			t.Errorf("it says %v; want what is the matter with %s", f, paid.GetPaymentId())
		}
	}
}
