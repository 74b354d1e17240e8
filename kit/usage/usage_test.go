package usage_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/usage"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)

// never draws nothing into the sample but what is in it anyway.
func never() uint64 { return 1 }

// recorder returns one whose process is called shop, with the time that it lives by.
func recorder(change ...func(*usage.Config)) (*usage.Recorder, *clocktest.Manual) {
	clk := clocktest.New(start)
	cfg := usage.Config{Service: "shop", OneIn: 1, Clock: clk, Random: never}
	for _, c := range change {
		c(&cfg)
	}
	return usage.New(cfg), clk
}

// counts returns the counts of a snapshot, by path, direction left out.
func counts(s usage.Snapshot) map[string]uint64 {
	m := make(map[string]uint64)
	for _, e := range s.Entries {
		m[e.Path] += e.Count
	}
	return m
}

func wantCounts(t *testing.T, s usage.Snapshot, want map[string]uint64) {
	t.Helper()
	if got := counts(s); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestAFieldIsCountedOnceAMessageAtItsPath(t *testing.T) {
	m := shop(t)
	for name, tc := range map[string]struct {
		order string
		want  []string
	}{
		"what is not set is not counted":              {"", []string{"order"}},
		"a default that is set without presence":      {`id: ""`, []string{"order"}},
		"a default that is set with presence":         {`count: 0`, []string{"order", "order.count"}},
		"an enum by its field alone":                  {`items {size: SIZE_LARGE}`, []string{"order", "order.items", "order.items.size"}},
		"a list without indices":                      {`items {sku: "a"} items {sku: "b"}`, []string{"order", "order.items", "order.items.sku"}},
		"a list whose items have different fields":    {`items {sku: "a"} items {size: SIZE_LARGE}`, []string{"order", "order.items", "order.items.size", "order.items.sku"}},
		"a map of text without keys":                  {`labels {key: "a" value: "b"}`, []string{"order", "order.labels"}},
		"a map of messages without keys":              {`gifts {key: "a" value {sku: "x"}} gifts {key: "b"}`, []string{"order", "order.gifts", "order.gifts.sku"}},
		"the field of a oneof that is set":            {`voucher: "a"`, []string{"order", "order.voucher"}},
		"a type of protobuf's own without its inside": {`made_at {seconds: 1} notes {fields {key: "a" value {number_value: 1}}}`, []string{"order", "order.made_at", "order.notes"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := recorder()
			tally := r.Method(place).From("web")
			tally.Request(m.request(t, tc.order))
			tally.Request(m.request(t, tc.order))
			want := make(map[string]uint64)
			for _, path := range tc.want {
				want[path] = 2
			}
			wantCounts(t, r.Snapshot(), want)
		})
	}
}

func TestAnEntrySaysWhichFieldOfWhichMessageItIs(t *testing.T) {
	m := shop(t)
	r, clk := recorder()
	r.Method(place).From("web").Request(m.request(t, `items {parts {sku: "a"}}`))
	clk.Advance(90 * time.Minute)
	r.Method(place).From("web").Response(m.make(t, "PlaceResponse", `order {id: "a"}`))
	clk.Advance(time.Second)
	entry := func(d usage.Direction, path, message, field string, seen time.Time) usage.Entry {
		return usage.Entry{Caller: "web", Method: place, Direction: d, Path: path, Message: message, Field: field, Count: 1, LastSeen: seen}
	}
	began, later := start.Truncate(time.Second), start.Truncate(time.Second).Add(90*time.Minute)
	want := usage.Snapshot{
		Version: 1, Service: "shop", Since: began, TakenAt: later.Add(time.Second), SampledOneIn: 1,
		Totals: []usage.Total{
			{Caller: "web", Method: place, Direction: usage.Request, Messages: 1, Sampled: 1, LastSeen: began},
			{Caller: "web", Method: place, Direction: usage.Response, Messages: 1, Sampled: 1, LastSeen: later},
		},
		Entries: []usage.Entry{
			entry(usage.Request, "order", "shop.v1.PlaceRequest", "order", began),
			entry(usage.Request, "order.items", "shop.v1.Order", "items", began),
			entry(usage.Request, "order.items.parts", "shop.v1.Item", "parts", began),
			entry(usage.Request, "order.items.parts.sku", "shop.v1.Item", "sku", began),
			entry(usage.Response, "order", "shop.v1.PlaceResponse", "order", later),
			entry(usage.Response, "order.id", "shop.v1.Order", "id", later),
		},
	}
	got, wanted := encode(t, r.Snapshot()), encode(t, want)
	if got != wanted {
		t.Errorf("got %s\nwant %s", got, wanted)
	}
	var back usage.Snapshot
	if err := json.Unmarshal([]byte(got), &back); err != nil || encode(t, back) != got {
		t.Errorf("%v, read back as %+v", err, back)
	}
	if err := json.Unmarshal([]byte(strings.Replace(got, `"request"`, `"sideways"`, 1)), &back); err == nil {
		t.Error("a direction that is none is read")
	}
}

func encode(t *testing.T, s usage.Snapshot) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The schema is what a review reads, of snapshots that older services wrote as well.
func TestTheSchemaIsWhatTheDocumentationSays(t *testing.T) {
	m := shop(t)
	r, _ := recorder()
	r.Method(place).From("web").Request(m.request(t, ``))
	const want = `{"version":1,"service":"shop","since":"2026-03-01T12:00:00Z","taken_at":"2026-03-01T12:00:00Z","sampled_one_in":1,` +
		`"dropped":0,"truncated":0,` +
		`"totals":[{"caller":"web","method":"/shop.v1.ShopService/Place","direction":"request","messages":1,"sampled":1,"last_seen":"2026-03-01T12:00:00Z"}],` +
		`"entries":[{"caller":"web","method":"/shop.v1.ShopService/Place","direction":"request","path":"order",` +
		`"message":"shop.v1.PlaceRequest","field":"order","count":1,"last_seen":"2026-03-01T12:00:00Z"}]}`
	if got := encode(t, r.Snapshot()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhereNothingIsCountedASnapshotSaysSo(t *testing.T) {
	r, _ := recorder(func(c *usage.Config) { c.OneIn = 0 })
	if r.Method(place) != nil || (*usage.Recorder)(nil).Method(place) != nil {
		t.Error("there is something to count with")
	}
	if got := encode(t, r.Snapshot()); !strings.Contains(got, `"sampled_one_in":0,"dropped":0,"truncated":0,"totals":[],"entries":[]`) {
		t.Error(got)
	}
	var none *usage.Tally // neither may it do anything where a call has no room
	none.Request(nil)
	none.Response(nil)
	none.Opaque()
}

func TestFieldsThatNobodyKnowsAreCountedByNumber(t *testing.T) {
	m := shop(t)
	raw := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 770177027703)
	raw = protowire.AppendString(protowire.AppendTag(raw, 100, protowire.BytesType), "zqcanaryzq")
	raw = protowire.AppendVarint(protowire.AppendTag(raw, 99, protowire.VarintType), 1) // again
	r, _ := recorder()
	r.Method(place).From("web").Request(with(m.request(t, ``), raw))
	s := r.Snapshot()
	wantCounts(t, s, map[string]uint64{"order": 1, "order.unknown:99": 1, "order.unknown:100": 1})
	for _, e := range s.Entries[1:] {
		if e.Message != "shop.v1.Order" || !strings.HasPrefix(e.Field, "unknown:") {
			t.Errorf("%+v", e)
		}
	}
	// What is no field is left alone.
	r.Method(place).From("web").Request(with(m.request(t, ``), []byte{0xff}))
	wantCounts(t, r.Snapshot(), map[string]uint64{"order": 2, "order.unknown:99": 1, "order.unknown:100": 1})
}

func TestTheSampleDecidesAndASeldomCallerIsSeenAllTheSame(t *testing.T) {
	m := shop(t)
	draw := uint64(1)
	r, clk := recorder(func(c *usage.Config) { c.OneIn, c.Random = 10, func() uint64 { return draw } })
	tally := r.Method(place).From("web")
	message := m.request(t, ``)
	want := func(what string, messages, sampled uint64) {
		t.Helper()
		if got := r.Snapshot().Totals[0]; got.Messages != messages || got.Sampled != sampled {
			t.Errorf("%s: %d of %d, want %d of %d", what, got.Sampled, got.Messages, sampled, messages)
		}
	}
	tally.Request(message)
	want("the first", 1, 1)
	tally.Request(message)
	want("one that is not drawn", 2, 1)
	draw = 20
	tally.Request(message)
	want("one that is drawn", 3, 2)
	draw = 21
	clk.Advance(time.Minute - time.Nanosecond)
	tally.Request(message)
	want("within a minute", 4, 2)
	clk.Advance(time.Nanosecond)
	tally.Request(message)
	want("after a minute", 5, 3)
	tally.Request(message)
	want("the one behind it", 6, 3)
	// Each direction and each caller is seen by itself.
	tally.Response(message)
	r.Method(place).From("app").Request(message)
	for _, total := range r.Snapshot().Totals {
		if total.Sampled == 0 {
			t.Errorf("%+v", total)
		}
	}
}

func TestAMessageThatIsNotLookedAtCostsNoMemory(t *testing.T) {
	m := shop(t)
	message := m.request(t, `id: "a"`)
	off, _ := recorder(func(c *usage.Config) { c.OneIn = 0 })
	on, _ := recorder(func(c *usage.Config) { c.OneIn = 100 })
	on.Method(place).From("web").Request(message) // the first one is looked at
	for name, f := range map[string]func(){
		"off":         func() { off.Method(place); (*usage.Tally)(nil).Request(message) },
		"not sampled": func() { on.Method(place).From("web").Request(message) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if total := on.Snapshot().Totals[0]; total.Sampled != 1 {
		t.Errorf("%+v", total)
	}
}

func TestAMessageThatWasEncodedBeforeIsCountedAsNotLookedAt(t *testing.T) {
	r, _ := recorder()
	r.Method(place).From("web").Opaque()
	s := r.Snapshot()
	if len(s.Totals) != 1 || s.Totals[0].Messages != 1 || s.Totals[0].Sampled != 0 || len(s.Entries) != 0 {
		t.Errorf("%+v", s)
	}
	if got := encode(t, s); strings.Count(got, "last_seen") != 0 {
		t.Error(got)
	}
}

func TestWhatIsBeyondTheBoundIsDroppedAndCounted(t *testing.T) {
	m := shop(t)
	r, _ := recorder(func(c *usage.Config) { c.MaxEntries = 4 })
	tally := r.Method(place).From("web") // takes one
	tally.Request(m.request(t, `id: "a" card: "b"`))
	wantCounts(t, r.Snapshot(), map[string]uint64{"order": 1, "order.id": 1, "order.card": 1})
	tally.Request(m.request(t, `id: "a" count: 1`))
	s := r.Snapshot()
	wantCounts(t, s, map[string]uint64{"order": 2, "order.id": 2, "order.card": 1})
	if s.Dropped != 1 {
		t.Errorf("%d dropped, want 1", s.Dropped)
	}
	if other := r.Method(place).From("app"); other != nil {
		t.Error("there is room for one more caller")
	}
	if s := r.Snapshot(); s.Dropped != 2 || len(s.Totals) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestNumbersThatCallersChooseDoNotCrowdOutWhatHasAName(t *testing.T) {
	m := shop(t)
	r, _ := recorder(func(c *usage.Config) { c.MaxEntries = 40 })
	tally := r.Method(place).From("web")
	var raw []byte
	for n := protowire.Number(1000); n < 1100; n++ {
		raw = protowire.AppendVarint(protowire.AppendTag(raw, n, protowire.VarintType), 1)
	}
	tally.Request(with(m.request(t, ``), raw))
	tally.Request(m.request(t, `id: "a"`))
	s := r.Snapshot()
	unknown := 0
	for path := range counts(s) {
		if strings.Contains(path, "unknown:") {
			unknown++
		}
	}
	if unknown != 10 || s.Dropped != 90 || counts(s)["order.id"] != 1 {
		t.Errorf("%d unknown, %d dropped, %v", unknown, s.Dropped, counts(s))
	}
}

func TestDeepAndLargeMessagesAreLookedAtInPart(t *testing.T) {
	m := shop(t)
	nested := func(depth int) string { // an order whose items are so deep, the request and the order included
		return strings.Repeat("parts {", depth-3) + `sku: "a"` + strings.Repeat("}", depth-3)
	}
	for name, tc := range map[string]struct {
		message   *dynamicpb.Message
		truncated uint64
		paths     int
	}{
		"eight deep":        {m.request(t, "items {"+nested(8)+"}"), 0, 1 + 1 + 5 + 1},
		"nine deep":         {m.request(t, "items {"+nested(9)+"}"), 1, 1 + 1 + 6},
		"many items":        {m.request(t, strings.Repeat(`items {} `, 9_990)), 0, 2},
		"too many items":    {m.request(t, strings.Repeat(`items {} `, 10_000)), 1, 2},
		"too many numbers":  {with(m.request(t, ``), numbers(10_000)), 1, 1 + 1},
		"as many as may be": {with(m.request(t, ``), numbers(9_990)), 0, 1 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := recorder()
			r.Method(place).From("web").Request(tc.message)
			if s := r.Snapshot(); s.Truncated != tc.truncated || len(s.Entries) != tc.paths {
				t.Errorf("%d truncated, %d paths: %v", s.Truncated, len(s.Entries), slices.Sorted(maps.Keys(counts(s))))
			}
		})
	}
}

// numbers returns n fields of one number, encoded.
func numbers(n int) []byte {
	var raw []byte
	for range n {
		raw = protowire.AppendVarint(protowire.AppendTag(raw, 99, protowire.VarintType), 1)
	}
	return raw
}

func TestManyCallersCountAtOnceAndNothingIsLost(t *testing.T) {
	m := shop(t)
	r, clk := recorder()
	const callers, calls = 8, 200
	message := m.request(t, `id: "a" items {sku: "b"} items {sku: "c"}`)
	var wg sync.WaitGroup
	for i := range callers * 2 { // two of each
		wg.Go(func() {
			for range calls {
				tally := r.Method(place).From(fmt.Sprint("caller-", i%callers))
				tally.Request(message)
				tally.Response(message)
				clk.Advance(time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for range calls {
			for _, total := range r.Snapshot().Totals {
				if total.Sampled > total.Messages {
					t.Errorf("%+v", total)
				}
			}
		}
	})
	wg.Wait()
	s := r.Snapshot()
	wantCounts(t, s, map[string]uint64{
		"order": callers * 4 * calls, "order.id": callers * 4 * calls, "order.items": callers * 4 * calls, "order.items.sku": callers * 4 * calls,
	})
	for _, total := range s.Totals {
		if total.Messages != 2*calls || total.Sampled != 2*calls {
			t.Errorf("%+v", total)
		}
	}
}
