package kittest

import (
	"testing"
	"testing/fstest"

	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// WantReasons fails the test unless each fault has its reason in the contract, the package's own in its ErrorReason and
// those of the kit in policy.v1's, and unless each reason of the package's is some fault's.
func WantReasons(t testing.TB, ours protoreflect.EnumDescriptor, faults []*fault.Fault) {
	t.Helper()
	kits := policyv1.File_policy_v1_error_reason_proto.Enums().ByName("ErrorReason")
	used := map[protoreflect.Name]bool{"ERROR_REASON_UNSPECIFIED": true}
	for _, f := range faults {
		name, enum := protoreflect.Name("ERROR_REASON_"+f.Reason()), ours
		if f.Domain() == fault.Domain {
			enum = kits
		} else {
			used[name] = true
		}
		if enum.Values().ByName(name) == nil {
			t.Errorf("%s has no value %s", enum.FullName(), name)
		}
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range ours.Values().Len() {
		if name := ours.Values().Get(i).Name(); !used[name] {
			t.Errorf("nothing is answered with %s", name)
		}
	}
}

// NewerDatabase makes the database of a service as a later version of it would leave it behind: with a migration of the
// set that the service does not know.
func NewerDatabase(t testing.TB, dir, file, set string) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{
		Dir: dir, File: file, Clock: clock.System(),
		Migrations: []sqldb.Set{eventlog.Migrations(), {Name: set, FS: fstest.MapFS{
			"sqlite/00999_future.sql": {Data: []byte("-- +goose Up\nCREATE TABLE future (id INTEGER PRIMARY KEY);\n")},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
