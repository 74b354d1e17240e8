package kit_test

import (
	"testing"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/token"
)

func TestEveryFaultOfTheKitHasAReasonInTheContract(t *testing.T) {
	for _, f := range []*fault.Fault{
		policy.ErrCredentialsMissing, policy.ErrCallerRefused, policy.ErrScopeMissing, policy.ErrNotSelf, policy.ErrNoPolicy,
		token.ErrInvalid, token.ErrExpired, token.ErrRevoked, token.ErrNoKeys,
		server.ErrDraining,
		sqldb.ErrOutcomeUnknown, sqldb.ErrStorageFull, sqldb.ErrStorageFailed, sqldb.ErrBusy, sqldb.ErrUnavailable, sqldb.ErrClosed,
		eventlog.ErrBadToken, eventlog.ErrTooOld, eventlog.ErrSlowConsumer, eventlog.ErrStopped, eventlog.ErrSubscriptionClosed,
	} {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		if _, ok := policyv1.ErrorReason_value["ERROR_REASON_"+f.Reason()]; !ok || f.Domain() != fault.Domain {
			t.Errorf("%s of %q is not in policy.v1.ErrorReason", f.Reason(), f.Domain())
		}
	}
}
