package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/payments/internal/api"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

// Users of the tests.
const (
	ann    = "0197a000-0000-7000-8000-00000000000a"
	bob    = "0197a000-0000-7000-8000-00000000000b"
	nobody = "0197a000-0000-7000-8000-0000000000ff"
)

// directory is the customers that there are. It is safe for concurrent use.
type directory struct {
	mu       sync.Mutex
	active   map[payments.CustomerID]bool
	answer   func(ctx context.Context) error // where set, what comes before the answer
	requests int
}

func (d *directory) Get(ctx context.Context, id payments.CustomerID) (payments.Customer, error) {
	d.mu.Lock()
	d.requests++
	active, ok := d.active[id]
	answer := d.answer
	d.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return payments.Customer{}, err
		}
	}
	if !ok {
		return payments.Customer{}, payments.ErrCustomerNotFound.With("customer_id", string(id))
	}
	return payments.Customer{ID: id, Active: active, Role: payments.RoleMember}, nil
}

func (d *directory) set(customer string, active bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active[payments.CustomerID(customer)] = active
}

func (d *directory) setAnswer(answer func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

// service is a running payments service.
type service struct {
	*kittest.Harness
	store     *sqlstore.Store
	customers *directory
	inside    kittest.Log // what the handlers have logged themselves
	close     func()
	opening   atomic.Pointer[func()] // where set, called in the middle of a transaction that opens an account
}

// start serves payments from the data directory until the test ends or close is called.
func start(t *testing.T, dir string, options ...func(*kittest.Options)) *service {
	t.Helper()
	newID := id.Generator(clock.System(), rand.Reader)
	s := &service{}
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{
		Dir: dir, Clock: clock.System(), Random: rand.Reader, NewID: func() string {
			if f := s.opening.Load(); f != nil {
				(*f)()
			}
			return newID()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	customers := &directory{active: map[payments.CustomerID]bool{ann: true, bob: true}}
	domain, err := payments.NewService(payments.Deps{
		Store: store, Customers: customers, Processor: simulator.New(clock.System()), Clock: clock.System(), NewID: newID,
		AuthorizationExpiry: 7 * 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stopLog := context.WithCancel(context.Background())
	logEnded := make(chan error, 1)
	go func() { logEnded <- store.Run(ctx) }()

	s.store, s.customers = store, customers
	var stop sync.Once
	closeStore := func() {
		stop.Do(func() {
			stopLog()
			if err := errors.Join(<-logEnded, store.Close()); err != nil {
				t.Errorf("close the store: %v", err)
			}
		})
	}
	t.Cleanup(closeStore) // after the harness, which registers its own cleanup later
	s.Harness = kittest.Start(t, api.New(domain, store.PageKey(), slog.New(slog.NewJSONHandler(&s.inside, nil))).Register, options...)
	s.close = func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		closeStore()
	}
	return s
}

// as returns a client of a user who may do everything that users may.
func (s *service) as(user string, scopes ...string) paymentsv1.PaymentServiceClient {
	return paymentsv1.NewPaymentServiceClient(s.As(user, append(scopes, "payments.read", "payments.write")...))
}

// orders returns a client of another service.
func (s *service) orders() paymentsv1.PaymentServiceClient {
	return paymentsv1.NewPaymentServiceClient(s.AsService("orders"))
}

// verify proves the books.
func (s *service) verify(t *testing.T) {
	t.Helper()
	proof, err := s.store.Verify(t.Context())
	if err := errors.Join(err, proof.Err()); err != nil {
		t.Error(err)
	}
}

// request returns a good charge of ann.
func request(key string) *paymentsv1.ChargeRequest {
	return &paymentsv1.ChargeRequest{
		OrderId: "X1", AmountCents: 150, Currency: "EUR", IdempotencyKey: key, CustomerId: ann,
		Metadata: map[string]string{"cart": "7"},
	}
}

// charge charges ann as a service and returns the payment.
func charge(t *testing.T, s *service, key string, change ...func(*paymentsv1.ChargeRequest)) *paymentsv1.Payment {
	t.Helper()
	req := request(key)
	for _, c := range change {
		c(req)
	}
	resp, err := s.orders().Charge(limit(t), req)
	if err != nil {
		t.Fatalf("charge %s: %v", key, err)
	}
	return resp.GetPayment()
}

func ofBob(r *paymentsv1.ChargeRequest) { r.CustomerId = bob }

// limit bounds what a test may wait for.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func wantEqual(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEveryRPCOfTheContractIsServed(t *testing.T) {
	t.Parallel()
	served := registered{}
	api.New(nil, make([]byte, 32), slog.New(slog.DiscardHandler)).Register(served)
	for _, service := range []protoreflect.ServiceDescriptor{
		paymentsv1.File_payments_v1_payment_service_proto.Services().ByName("PaymentService"),
		paymentsv1.File_payments_v1_ledger_service_proto.Services().ByName("LedgerService"),
	} {
		server := served[string(service.FullName())]
		if server == nil || service.Methods().Len() == 0 {
			t.Errorf("%s is not served, or has no method", service.FullName())
			continue
		}
		for i := range service.Methods().Len() {
			name := string(service.Methods().Get(i).Name())
			m, ok := server.MethodByName(name)
			if !ok {
				t.Errorf("%s is not there", name)
				continue
			}
			// A method that is only promoted from the embedded Unimplemented server has no source of its own.
			file, _ := runtime.FuncForPC(m.Func.Pointer()).FileLine(m.Func.Pointer())
			if strings.Contains(file, "autogenerated") {
				t.Errorf("%s is not overridden", name)
			}
		}
	}
}

// registered are the types that serve, by the names of their services.
type registered map[string]reflect.Type

func (r registered) RegisterService(d *grpc.ServiceDesc, server any) {
	r[d.ServiceName] = reflect.TypeOf(server)
}

func TestEveryReasonOfTheDomainIsInTheContractAndEveryOneOfTheContractIsUsed(t *testing.T) {
	t.Parallel()
	kittest.WantReasons(t, paymentsv1.File_payments_v1_error_reason_proto.Enums().ByName("ErrorReason"), slices.Concat(payments.Faults(), ledger.Faults()))
}

// The bytes of the source material: a client that was built years ago sends these.
func TestAChargeRequestIsTheSameBytesForEver(t *testing.T) {
	t.Parallel()
	want := []byte{0x0a, 0x02, 'X', '1', 0x10, 0x96, 0x01}
	got, err := proto.MarshalOptions{Deterministic: true}.Marshal(&paymentsv1.ChargeRequest{OrderId: "X1", AmountCents: 150})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	var back paymentsv1.ChargeRequest
	if err := proto.Unmarshal(want, &back); err != nil || back.GetOrderId() != "X1" || back.GetAmountCents() != 150 {
		t.Errorf("got %v, %v", &back, err)
	}
	fields := back.ProtoReflect().Descriptor().Fields()
	for number, name := range map[protoreflect.FieldNumber]protoreflect.Name{
		1: "order_id", 2: "amount_cents", 3: "currency", 4: "idempotency_key", 5: "metadata", 7: "customer_id",
	} {
		if f := fields.ByNumber(number); f == nil || f.Name() != name {
			t.Errorf("field %d is %v, want %s", number, f, name)
		}
	}
	if !back.ProtoReflect().Descriptor().ReservedRanges().Has(6) {
		t.Error("field 6 is not reserved")
	}
}
