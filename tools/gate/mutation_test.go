package gate

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	paymentService = "proto/payments/v1/payment_service.proto"
	payment        = "proto/payments/v1/payment.proto"
	userEvent      = "proto/auth/v1/user_event.proto"
	authService    = "proto/auth/v1/auth_service.proto"
)

// A mutation is one change of the real contract.
type mutation struct {
	name  string
	edits []edit   // the first is in the file where it must be found
	rules []string // the buf rules that must go red, all of them; none for a change that breaks nothing
}

// mutations are what the gate must see, one for each kind of promise.
func mutations() []mutation {
	return []mutation{
		{"a field that is deleted", []edit{
			{paymentService, "message ChargeRequest", field("currency"), remove},
		}, []string{"FIELD_NO_DELETE"}},
		{"a field that is deleted, its number and name reserved", []edit{
			{paymentService, "message ChargeRequest", field("currency"), func(string) string { return "  reserved 3;\n  reserved \"currency\";" }},
		}, []string{"FIELD_NO_DELETE"}},
		{"a field with another number", []edit{
			{paymentService, "message ChargeRequest", field("currency"), number(99)},
		}, []string{"FIELD_NO_DELETE"}},
		{"two fields that swap their numbers", []edit{
			{payment, "message Payment", field("order_id"), number(3)},
			{payment, "message Payment", field("customer_id"), number(2)},
		}, []string{"FIELD_SAME_NAME"}},
		{"a field of another type", []edit{
			{paymentService, "message ChargeRequest", field("currency"), bare("bytes currency = 3")},
		}, []string{"FIELD_SAME_TYPE"}},
		{"a field of another type with the same wire format", []edit{
			{payment, "message Payment", field("amount_cents"), replace("int64", "uint64")},
		}, []string{"FIELD_SAME_TYPE"}},
		{"a field with another name", []edit{
			{paymentService, "message ChargeRequest", field("currency"), replace("currency", "currency_code")},
		}, []string{"FIELD_SAME_NAME", "FIELD_SAME_JSON_NAME"}},
		{"a field that may now repeat", []edit{
			{payment, "message Payment", field("order_id"), bare("repeated string order_id = 2")},
		}, []string{"FIELD_SAME_CARDINALITY"}},
		{"a field that leaves its oneof", []edit{
			{paymentService, "message ProcessChargesResponse", field("error"), remove},
			{paymentService, "message ProcessChargesResponse", field("replayed"), func(f string) string {
				return f + "\n\n  // The reason.\n  google.rpc.Status error = 3;"
			}},
		}, []string{"FIELD_SAME_ONEOF"}},
		{"a reserved number that is free again", []edit{
			{paymentService, "message ChargeRequest", `reserved \d`, remove},
		}, []string{"RESERVED_MESSAGE_NO_DELETE"}},
		{"an enum value that is deleted", []edit{
			{userEvent, "enum UserEventType", field("USER_EVENT_TYPE_LOGIN_FAILED"), remove},
		}, []string{"ENUM_VALUE_NO_DELETE"}},
		{"an enum value with another name", []edit{
			{userEvent, "enum UserEventType", field("USER_EVENT_TYPE_LOGIN_FAILED"), replace("FAILED", "REFUSED")},
		}, []string{"ENUM_VALUE_SAME_NAME"}},
		{"a method that is removed", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), remove},
		}, []string{"RPC_NO_DELETE"}},
		{"a method that answers with another message", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), replace("returns (GetPaymentResponse)", "returns (ChargeResponse)")},
		}, []string{"RPC_SAME_RESPONSE_TYPE"}},
		{"a method that takes another message", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), replace("(GetPaymentRequest)", "(ListPaymentsRequest)")},
		}, []string{"RPC_SAME_REQUEST_TYPE"}},
		{"a method that now streams its answer", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), replace("returns (", "returns (stream ")},
		}, []string{"RPC_SAME_SERVER_STREAMING"}},
		{"a method that no longer takes a stream", []edit{
			{paymentService, "service PaymentService", rpc("ProcessCharges"), replace("(stream ", "(")},
		}, []string{"RPC_SAME_CLIENT_STREAMING"}},
		{"a method that may no longer be repeated", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), replace("idempotency_level = NO_SIDE_EFFECTS", "idempotency_level = IDEMPOTENCY_UNKNOWN")},
		}, []string{"RPC_SAME_IDEMPOTENCY_LEVEL"}},
		{"a message that is deleted", []edit{
			{userEvent, "", "message UserEvent ", replace("UserEvent", "Event")},
			{authService, "", field("event"), replace("UserEvent", "Event")},
		}, []string{"MESSAGE_NO_DELETE"}},
		{"a service that is renamed", []edit{
			{authService, "", "service AuthService ", replace("AuthService", "IdentityService")},
		}, []string{"SERVICE_NO_DELETE"}},

		{"a new field", []edit{
			{paymentService, "message ChargeRequest", field("currency"), func(f string) string {
				return f + "\n\n  // A note.\n  string note = 9999;"
			}},
		}, nil},
		{"a new method", []edit{
			{paymentService, "service PaymentService", rpc("GetPayment"), func(r string) string {
				return r + "\n\n" + strings.Replace(r, "rpc GetPayment", "rpc FindPayment", 1)
			}},
		}, nil},
		{"a new enum value", []edit{
			{userEvent, "enum UserEventType", field("USER_EVENT_TYPE_LOGIN"), func(v string) string {
				return v + "\n\n  // Something new.\n  USER_EVENT_TYPE_NEW = 9999;"
			}},
		}, nil},
		{"a comment in other words", []edit{
			{paymentService, "", "message ChargeRequest ", func(m string) string { return "// In other words.\n" + m }},
		}, nil},
	}
}

func TestTheGateBites(t *testing.T) {
	buf := buildBuf(t)
	tr := newTree(t)
	copyContract(tr)
	tr.commit("the contract")

	none := mutation{name: "no change at all"}
	for _, m := range append(mutations(), none) {
		t.Run(m.name, func(t *testing.T) {
			tr.git("checkout", "--quiet", "-B", "change", "main")
			for _, e := range m.edits {
				e.apply(tree{t, tr.dir})
			}
			tr.commit(m.name)
			found := verdict(t, Gate{Dir: tr.dir, Buf: buf})
			for _, rule := range m.rules {
				at := func(f Finding) bool { return f.Rule == rule && f.Path == m.edits[0].file }
				if !slices.ContainsFunc(found, at) {
					t.Errorf("no %s in %s; got %v", rule, m.edits[0].file, found)
				}
			}
			if len(m.rules) == 0 && len(found) > 0 {
				t.Errorf("a harmless change went red: %v", found)
			}
		})
	}
}

// verdict runs the gate. It fails the test where the gate could not compare, and where what it
// prints does not name what it found.
func verdict(t *testing.T, g Gate) []Finding {
	t.Helper()
	var printed bytes.Buffer
	g.Out = &printed
	err := g.Run(t.Context())
	broken, ok := errors.AsType[*BreakingError](err)
	if err != nil && !ok {
		t.Fatalf("the gate could not compare: %v\n%s", err, &printed)
	}
	if !strings.Contains(printed.String(), "against base: ") {
		t.Errorf("the gate does not say what it compared:\n%s", &printed)
	}
	if broken == nil {
		return nil
	}
	for _, f := range broken.Findings {
		if !strings.Contains(printed.String(), f.Rule) {
			t.Errorf("the gate does not print %s:\n%s", f.Rule, &printed)
		}
	}
	return broken.Findings
}

func TestEachBaselineIsComparedOnItsOwn(t *testing.T) {
	buf := buildBuf(t)
	tr := newTree(t)
	copyContract(tr)
	released := tr.commit("released with the field")
	edit{paymentService, "message ChargeRequest", field("currency"), remove}.apply(tr)
	tr.commit("the field is gone on main, whoever let that in")
	tr.git("checkout", "--quiet", "-b", "change")
	tr.write("proto/baselines.yaml", "release: "+released+"\n")
	tr.commit("harmless itself")

	found := verdict(t, Gate{Dir: tr.dir, Buf: buf})
	if len(found) != 1 || found[0].Rule != "FIELD_NO_DELETE" {
		t.Errorf("got %v; want the field that the release had, which the base no longer has", found)
	}
}

func TestAGateThatCannotCompareIsNotGreen(t *testing.T) {
	buf := buildBuf(t)
	for _, row := range []struct {
		name  string
		spoil func(tr tree)
	}{
		{"the contract does not compile", func(tr tree) { tr.write(payment, "syntax = \"proto3\";\nmessage {") }},
		{"a schema that others import is gone", func(tr tree) { tr.git("rm", "--quiet", payment) }},
		{"the baselines are gone", func(tr tree) { tr.git("rm", "--quiet", "proto/baselines.yaml") }},
		{"a baseline does not exist", func(tr tree) {
			tr.write("proto/baselines.yaml", "release: "+strings.Repeat("ab", 20)+"\n")
		}},
		{"the configuration is broken", func(tr tree) { tr.write("buf.yaml", "version: v9\n") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := newTree(t)
			copyContract(tr)
			tr.commit("the contract")
			tr.git("checkout", "--quiet", "-b", "change")
			row.spoil(tr)
			tr.commit("spoiled")
			err := Gate{Dir: tr.dir, Buf: buf, Out: new(bytes.Buffer)}.Run(t.Context())
			if _, ok := errors.AsType[*BreakingError](err); err == nil || ok {
				t.Errorf("got %v; want an error that is no list of findings", err)
			}
		})
	}
}
