package corpus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

const testdata = "testdata"

func TestEveryFrozenMessageIsReadAndWrittenAsItWas(t *testing.T) {
	entries, err := Load(testdata)
	if err != nil {
		t.Fatal(err)
	}
	frozen := map[string]int{}
	for _, e := range entries {
		pkg := e.Message[:strings.LastIndex(e.Message, ".")]
		frozen[pkg]++
		if err := e.Check(); err != nil {
			t.Errorf("%s: %v", e, err)
		}
	}
	for _, pkg := range Packages() {
		if frozen[pkg] == 0 {
			t.Errorf("no message of %s is frozen", pkg)
		}
	}
	if none := Missing(entries); len(none) > 0 {
		t.Logf("not frozen yet; add them with a release (go run ./proof skew --freeze missing): %s", strings.Join(none, ", "))
	}
}

func TestTheGoldenBytesOfACharge(t *testing.T) {
	const golden = "0a025831109601" // field 1, two bytes, "X1"; field 2, 150
	wire, err := proto.Marshal(&paymentsv1.ChargeRequest{OrderId: "X1", AmountCents: 150})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(wire); got != golden {
		t.Errorf("got %s, want %s", got, golden)
	}
	entries, err := Load(testdata)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.String() == "payments.v1.ChargeRequest/x1" })
	if i < 0 || hex.EncodeToString(entries[i].Wire) != golden {
		t.Error("they are not frozen")
	}
}

func TestAFrozenMessageThatIsReadOtherwiseIsFound(t *testing.T) {
	good, err := Add(t.TempDir(), "one", &authv1.GetUserResponse{UserId: "u", Active: true, Role: authv1.Role_ROLE_ADMIN})
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string]Entry{
		"a message that is gone":           {Message: "auth.v1.Gone", Wire: good.Wire, JSON: good.JSON},
		"bytes that are no message":        {Message: good.Message, Wire: good.Wire[:3], JSON: good.JSON},
		"a field with another number":      {Message: good.Message, Wire: bytes.Replace(good.Wire, []byte{0x10, 0x01}, []byte{0x20, 0x01}, 1), JSON: good.JSON},
		"a field with another name":        {Message: good.Message, Wire: good.Wire, JSON: bytes.Replace(good.JSON, []byte("active"), []byte("enabled"), 1)},
		"an enum value with another name":  {Message: good.Message, Wire: good.Wire, JSON: bytes.Replace(good.JSON, []byte("ROLE_ADMIN"), []byte("ROLE_ROOT"), 1)},
		"fields in another order":          {Message: good.Message, Wire: append(slices.Clone(good.Wire[3:]), good.Wire[:3]...), JSON: good.JSON},
		"a field that nobody knows":        {Message: good.Message, Wire: append(slices.Clone(good.Wire), 0x98, 0x06, 0x01), JSON: bytes.Replace(good.JSON, []byte("{"), []byte(`{"later": true,`), 1)},
		"JSON that is none":                {Message: good.Message, Wire: good.Wire, JSON: []byte("{")},
		"an answer that was another value": {Message: good.Message, Wire: good.Wire, JSON: bytes.Replace(good.JSON, []byte(`"u"`), []byte(`"v"`), 1)},
	} {
		if err := broken.Check(); err == nil {
			t.Errorf("%s is not found", name)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

func TestAnEntryIsAddedAndNeverRewritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := AddText(dir, "payments.v1.ChargeRequest", "x1", []byte(`{"orderId": "X1"}`)); err != nil {
		t.Fatal(err)
	}
	before, err := Load(dir)
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	if _, err := AddText(dir, "payments.v1.ChargeRequest", "x1", []byte(`{"orderId": "X2"}`)); !errors.Is(err, ErrFrozen) {
		t.Errorf("got %v, want ErrFrozen", err)
	}
	after, err := Load(dir)
	if err != nil || !bytes.Equal(after[0].Wire, before[0].Wire) || !bytes.Equal(after[0].JSON, before[0].JSON) {
		t.Errorf("it was rewritten: %v %v", after, err)
	}
	for name, add := range map[string][3]string{
		"a message that is none": {"payments.v1.Gone", "x", "{}"},
		"a field that is none":   {"payments.v1.ChargeRequest", "x", `{"gone": 1}`},
		"a name with a path":     {"payments.v1.ChargeRequest", "../x", "{}"},
		"no name":                {"payments.v1.ChargeRequest", "", "{}"},
	} {
		if e, err := AddText(dir, add[0], add[1], []byte(add[2])); err == nil {
			t.Errorf("%s is added as %s", name, e)
		}
	}
}

func TestWhatIsMissingIsAddedForEveryMessage(t *testing.T) {
	dir := t.TempDir()
	added, err := AddMissing(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := Load(dir)
	if err != nil || len(entries) != len(added) || len(Missing(entries)) != 0 {
		t.Fatalf("%d of %d added entries are there, %v are missing: %v", len(entries), len(added), Missing(entries), err)
	}
	again, err := AddMissing(dir)
	if err != nil || len(again) != 0 {
		t.Errorf("a second time adds %v, %v", again, err)
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.String() == "payments.v1.ProcessChargesResponse/full-2" })
	if i < 0 || !bytes.Contains(entries[i].JSON, []byte(`"error"`)) {
		t.Error("the second choice of a oneof has no entry")
	}
}

func TestARewrittenEntryIsFound(t *testing.T) {
	before, now := t.TempDir(), t.TempDir()
	for _, dir := range []string{before, now} {
		for _, name := range []string{"kept", "other", "gone"} {
			if _, err := Add(dir, name, &authv1.GetUserRequest{UserId: name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Add(now, "new", &authv1.GetUserRequest{}); err != nil {
		t.Fatal(err)
	}
	at := func(file string) string { return filepath.Join(now, "auth.v1.GetUserRequest", file) }
	if err := errors.Join(os.WriteFile(at("other.json"), []byte("{}"), 0o600), os.Remove(at("gone.binpb"))); err != nil {
		t.Fatal(err)
	}
	got, err := Rewritten(before, now)
	if want := []string{"auth.v1.GetUserRequest/gone.binpb", "auth.v1.GetUserRequest/other.json"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := Load(now); err == nil {
		t.Error("half of an entry is loaded")
	}
	if got, err := Rewritten(filepath.Join(before, "none"), now); err != nil || got != nil {
		t.Errorf("a baseline without a corpus: %v, %v", got, err)
	}
}
