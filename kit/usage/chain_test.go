package usage_test

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/usage"
)

const canary = "zqcanaryzq"

// serve serves the shop, which answers with the response, and counts into r.
func serve(t *testing.T, r *usage.Recorder, respond proto.Message) *kittest.Harness {
	t.Helper()
	return kittest.Start(t, shop(t).register(respond), func(o *kittest.Options) { o.Usage = r })
}

// where returns who filled in the field in which direction of which method, of all entries.
func where(s usage.Snapshot, path string) []string {
	var list []string
	for _, e := range s.Entries {
		if e.Path == path {
			list = append(list, e.Caller+" "+e.Method+" "+e.Direction.String())
		}
	}
	return list
}

func TestACallIsCountedUnderThePeerOfItsConnection(t *testing.T) {
	m := shop(t)
	r, _ := recorder()
	respond := m.make(t, "PlaceResponse", `order {card: "c"}`)
	h := serve(t, r, respond)
	for _, conn := range []*grpc.ClientConn{h.AsService("orders"), h.As("0198c2f1-"+canary, "shop"), h.Anonymous()} {
		if err := conn.Invoke(t.Context(), place, m.request(t, `id: "a"`), proto.Clone(respond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Stop(); err != nil { // what a handler does last has been done
		t.Fatal(err)
	}
	s := r.Snapshot()
	if got, want := where(s, "order.id"), []string{"gateway " + place + " request", "orders " + place + " request"}; !slices.Equal(got, want) {
		t.Errorf("order.id of %v, want %v", got, want)
	}
	if got, want := where(s, "order.card"), []string{"gateway " + place + " response", "orders " + place + " response"}; !slices.Equal(got, want) {
		t.Errorf("order.card of %v, want %v", got, want)
	}
	if i := slices.IndexFunc(s.Entries, func(e usage.Entry) bool { return e.Path == "order.id" && e.Caller == "gateway" }); s.Entries[i].Count != 2 {
		t.Errorf("%+v", s.Entries[i])
	}
}

func TestEachMessageOfAStreamIsCounted(t *testing.T) {
	m := shop(t)
	r, _ := recorder()
	respond := m.make(t, "PlaceResponse", `order {id: "a"}`)
	h := serve(t, r, respond)
	s, err := h.AsService("orders").NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, placeMany)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []string{`voucher: "v"`, `card: "c"`, `card: "d"`} {
		if err := s.SendMsg(m.request(t, order)); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(proto.Clone(respond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, r.Snapshot(), map[string]uint64{"order": 6, "order.voucher": 1, "order.card": 2, "order.id": 3})
}

func TestWhatIsRefusedIsNoUseAndHealthIsNobodysContract(t *testing.T) {
	m := shop(t)
	r, _ := recorder()
	h := serve(t, r, m.make(t, "PlaceResponse", ``))
	err := h.AsService("orders").Invoke(t.Context(), refuse, m.request(t, `id: "a"`), m.make(t, "PlaceResponse", ``))
	kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
	if _, err := healthpb.NewHealthClient(h.AsService("orders")).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "shop.v1.ShopService"}); err != nil {
		t.Fatal(err)
	}
	if s := r.Snapshot(); len(s.Totals)+len(s.Entries) != 0 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNoValueGetsIn(t *testing.T) {
	m := shop(t)
	r, _ := recorder()
	const everything = `id: "` + canary + `" items {sku: "` + canary + `" size: SIZE_LARGE} gifts {key: "` + canary + `" value {sku: "` + canary + `"}}
		labels {key: "` + canary + `" value: "` + canary + `"} notes {fields {key: "` + canary + `" value {string_value: "` + canary + `"}}}
		card: "` + canary + `" secret: "` + canary + `" count: 770177027703 made_at {seconds: 770177027}`
	respond := m.make(t, "PlaceResponse", `order {`+everything+`}`)
	h := serve(t, r, respond)
	raw := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), canary)
	for _, conn := range []*grpc.ClientConn{h.AsService("orders"), h.As("user-"+canary, "scope-"+canary)} {
		if err := conn.Invoke(t.Context(), place, with(m.request(t, everything), raw), proto.Clone(respond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	s := r.Snapshot()
	if counts(s)["order.secret"] != 4 || counts(s)["order.unknown:99"] != 2 {
		t.Fatalf("what was sent is not there: %v", counts(s))
	}
	shown, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{canary, hex.EncodeToString([]byte(canary)), "770177027", "SIZE_LARGE", "127.0.0.1"} {
		if strings.Contains(string(shown), secret) {
			t.Errorf("%s is in %s", secret, shown)
		}
	}
}

func TestCallsAtOnceAreCountedThroughThePathWhileItIsRead(t *testing.T) {
	m := shop(t)
	r, clk := recorder(func(c *usage.Config) { c.MaxEntries = 5 })
	respond := m.make(t, "PlaceResponse", ``)
	h := serve(t, r, respond)
	const callers, calls = 4, 50
	var wg sync.WaitGroup
	for i := range callers {
		conn := h.AsService([]string{"orders", "billing"}[i%2])
		wg.Go(func() {
			for range calls {
				clk.Advance(time.Second)
				if err := conn.Invoke(t.Context(), place, m.request(t, `id: "a"`), dynamicpb.NewMessage(respond.Descriptor())); err != nil {
					t.Error(err)
				}
				r.Snapshot()
			}
		})
	}
	wg.Wait()
	s := r.Snapshot()
	entries := uint64(len(s.Entries))
	if entries != 3 || s.Dropped == 0 { // and the two callers
		t.Errorf("%d entries, %d dropped", entries, s.Dropped)
	}
	total := s.Dropped
	for _, n := range counts(s) {
		total += n
	}
	if want := uint64(callers * calls * 2); total != want { // both fields of each, kept or dropped
		t.Errorf("%d counted or dropped, want %d", total, want)
	}
}
