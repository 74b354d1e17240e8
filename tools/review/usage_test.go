package review_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/review"
)

// snapshots writes snapshots of usage and returns an option with them. Of each text the version is 1 unless it says another.
func snapshots(t *testing.T, texts ...string) func(*review.Options) {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for i, text := range texts {
		file := filepath.Join(dir, fmt.Sprint(i, ".json"))
		if !strings.Contains(text, `"version"`) {
			text = `"version": 1, ` + text
		}
		if err := os.WriteFile(file, []byte("{"+text+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return func(o *review.Options) { o.Usage = files }
}

// What was deprecated goes after its sunset, once nobody uses it: either alone is not enough.
func TestADeprecationEndsAfterItsSunsetWhereNobodyUsesIt(t *testing.T) {
	tr := contract(t)
	tr.Git("checkout", "--quiet", "main")
	old := strings.Replace(thing, "  // Its size.\n  int32 size = 2;", "  // Its size. Deprecated: use name instead. Sunset: 2027-06-30.\n  int32 size = 2 [deprecated = true];", 1)
	tr.Write("proto/acme/v1/thing.proto", old)
	tr.Commit("deprecated")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Commit("work")
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "  // Its size.\n  int32 size = 2;", "  reserved 2;\n  reserved \"size\";", 1))
	used := `"service": "things", "sampled_one_in": 1, "entries": [
		{"caller": "orders", "method": "/acme.v1.ThingService/Put", "direction": "request", "message": "acme.v1.Thing", "field": "size", "count": 7, "last_seen": "2026-12-01T09:00:00Z"}]`
	unused := `"service": "things", "sampled_one_in": 1, "entries": [
		{"caller": "orders", "method": "/acme.v1.ThingService/Put", "direction": "request", "message": "acme.v1.Thing", "field": "name", "count": 7, "last_seen": "2026-12-01T09:00:00Z"}]`
	before, after := time.Date(2027, 6, 29, 23, 59, 59, 0, time.UTC), time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name string
		now  time.Time
		saw  string
		want []string // beside the removal, which always takes an approval
	}{
		{"before its sunset, used", before, used, []string{review.StillUsed, "SUNSET_NOT_REACHED"}},
		{"before its sunset, not used", before, unused, []string{"SUNSET_NOT_REACHED"}},
		{"after its sunset, used", after, used, []string{review.StillUsed}},
		{"after its sunset, not used", after, unused, nil},
	} {
		use := snapshots(t, row.saw)
		report := reviewed(t, tr, func(o *review.Options) { use(o); o.Now = row.now })
		if want := append([]string{"FIELD_NO_DELETE"}, row.want...); !slices.Equal(failing(report), want) {
			t.Errorf("%s: found %v; want %v", row.name, failing(report), want)
		}
	}
}

// A method is used by who calls it, also where its messages say nothing; whom several servers saw is one caller.
func TestAMethodThatServersSawCalledIsNotRemovedUnnoticed(t *testing.T) {
	const service = "\n// Things.\nservice ThingService {\n  // Puts one.\n  rpc Put(Thing) returns (Thing);\n\n  // Gets one.\n  rpc Get(Thing) returns (Thing);\n}\n"
	tr := contract(t)
	tr.Git("checkout", "--quiet", "main")
	tr.Write("proto/acme/v1/thing.proto", thing+service)
	tr.Commit("with a service")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Commit("work")
	tr.Write("proto/acme/v1/thing.proto", thing+strings.Replace(service, "  // Puts one.\n  rpc Put(Thing) returns (Thing);\n\n", "", 1))
	saw := func(method, direction, seen string, messages int) string {
		return fmt.Sprintf(`"service": "things", "sampled_one_in": 1, "totals": [{"caller": "orders", "method": "/acme.v1.ThingService/%s", "direction": %q, "messages": %d, "last_seen": %q}]`,
			method, direction, messages, seen)
	}
	for _, row := range []struct {
		name string
		saw  []string
		want string
	}{
		{"called, as two servers saw", []string{saw("Put", "request", "2026-11-30T09:00:00Z", 3), saw("Put", "request", "2026-12-01T09:00:00Z", 4)},
			"rpc acme.v1.ThingService.Put is removed, and was last used by orders 3 h ago; 7 times"},
		{"another one called", []string{saw("Get", "request", "2026-12-01T09:00:00Z", 4)}, ""},
	} {
		said := ""
		for _, f := range reviewed(t, tr, snapshots(t, row.saw...)).Findings {
			if f.Rule == review.StillUsed {
				said += fmt.Sprintf("%s; %d times", f.Text, f.Seen[0].Count)
			}
		}
		if said != row.want {
			t.Errorf("%s: said %q; want %q", row.name, said, row.want)
		}
	}
}

func TestWhatSnapshotsDoNotProveIsSaid(t *testing.T) {
	tr := contract(t)
	since := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	complete := `"service": "users", "since": "2026-11-20T08:00:00Z", "sampled_one_in": 10`
	for _, row := range []struct {
		name string
		saw  []string
		want *review.Evidence
	}{
		{"no snapshot", nil, nil},
		{"one", []string{complete}, &review.Evidence{Services: []string{"users"}, Since: since}},
		{"the one that began last says since when", []string{complete, `"service": "auth", "since": "2026-11-03T08:00:00Z", "sampled_one_in": 1`},
			&review.Evidence{Services: []string{"users", "auth"}, Since: since}},
		{"one that counts nothing", []string{`"service": "auth", "since": "2026-11-03T08:00:00Z"`, complete},
			&review.Evidence{Services: []string{"auth", "users"}, Since: since, Incomplete: "auth counted nothing: it runs without --usage-sample"}},
		{"one that had no room", []string{complete + `, "dropped": 3`},
			&review.Evidence{Services: []string{"users"}, Since: since, Incomplete: "users had no room to count 3 times"}},
		{"one that did not look to the end", []string{complete + `, "truncated": 4`},
			&review.Evidence{Services: []string{"users"}, Since: since, Incomplete: "users did not look at 4 messages to their end"}},
	} {
		if got := reviewed(t, tr, snapshots(t, row.saw...)).Evidence; !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v; want %+v", row.name, got, row.want)
		}
	}
	if _, err := run(t, tr, snapshots(t, `"version": 2, "service": "users"`)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a snapshot of another version: %v", err)
	}
}
