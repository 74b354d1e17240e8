package faults

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/proof/internal/auth"
)

// Payments is the payments service: charges one by one and by a stream, captures, refunds and releases of them, and transfers between
// accounts of the ledger, all at once; a tenth of it is asked for again on purpose. Beside it runs an auth that knows everybody.
func Payments() Service {
	state := auth.New()
	return Service{
		Name: "payments", Peer: "orders",
		Files:    []string{"payments.db", "payments.db-wal", "payments.db-journal"},
		Volatile: volatile,
		Verify:   []string{"verify"},
		Beside: func(ctx context.Context, pki string) ([]string, func() error, error) {
			known, err := state.Serve(ctx, pki, trustDomain, "127.0.0.1:0")
			if err != nil {
				return nil, nil, err
			}
			return paymentsSettings(known), known.Close, nil
		},
		New: func(seed uint64, calls Calls) Workload {
			p := &payments{
				calls: calls, newID: id.Generator(clock.System(), rand.Reader), begun: time.Now(),
				random: mathrand.New(mathrand.NewPCG(seed, 0)), orders: map[string]*charge{},
			}
			for range customers {
				p.customers = append(p.customers, p.newID())
			}
			return p
		},
		Balanced: true,
		// Who is locked is answered without a write: with what is kept of the key.
		Alone:    state.LockAll,
		Controls: paymentsControls(),
		Faults: func(b *bench) []fault {
			return []fault{{authAway, "auth_outages", b.authAway}, {twoReplicas, "replica_rounds", b.replicas}}
		},
	}
}

// paymentsSettings say where auth is. Nobody is erased here, so nobody serves users.
func paymentsSettings(known *auth.Server) []string {
	return []string{"--auth", known.Target, "--users", "passthrough:///127.0.0.1:1"}
}

const (
	customers = 20
	// The callers of one load.
	chargers, streamers, alterers, movers = 5, 1, 3, 2
	// together is how many charges are under way on a stream.
	together = 16
	// again: of so many requests one is sent again although it was answered.
	oneAgain = 10
	// callTime is what a caller waits for an answer.
	callTime = 3 * time.Second
	// The accounts between which money is moved, and how far each may be overdrawn.
	bankAccounts = 8
	overdraft    = 500
	bank         = "bank"
	mostMoved    = 300
	currency     = "EUR"
	// glance is how often the invariants are looked at under load.
	glance = time.Second
)

// payments is the book on a payments service.
type payments struct {
	calls     Calls
	newID     func() string
	customers []string
	begun     time.Time // what the times of the history are counted from

	mu        sync.Mutex
	random    *mathrand.Rand
	charges   []*charge          // in the order in which they were asked for
	orders    map[string]*charge // the same, by order
	transfers []*transfer
	readings  []reading
	accounts  []string // their ids
	token     string   // of the events, before the first
	wrongs    []string // what was not as it must be while the service was used
	glances   int      // at the invariants, that were answered
	deaf      bool     // what others are told, and what is read, is not noted
}

var _ Workload = (*payments)(nil)

// Begin implements Workload.
func (p *payments) Begin(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := paymentsv1.NewPaymentServiceClient(conn).WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	p.token = first.GetResumeToken()
	ledger := paymentsv1.NewLedgerServiceClient(conn)
	for n := range bankAccounts {
		limit := int64(overdraft)
		resp, err := ledger.OpenAccount(ctx, &paymentsv1.OpenAccountRequest{
			Owner: fmt.Sprintf("%s.%d", bank, n), Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: currency,
			OverdraftLimitCents: &limit, IdempotencyKey: p.newID(),
		})
		if err != nil {
			return err
		}
		p.accounts = append(p.accounts, resp.GetAccount().GetAccountId())
	}
	return nil
}

// Load implements Workload.
func (p *payments) Load(ctx context.Context, conn *grpc.ClientConn) {
	client, ledger := paymentsv1.NewPaymentServiceClient(conn), paymentsv1.NewLedgerServiceClient(conn)
	var wg sync.WaitGroup
	defer wg.Wait()
	each := func(count int, once func(context.Context)) {
		for range count {
			wg.Go(func() {
				for ctx.Err() == nil {
					once(ctx)
				}
			})
		}
	}
	each(chargers, func(ctx context.Context) { p.chargeOnce(ctx, client) })
	each(streamers, func(ctx context.Context) { p.streamOnce(ctx, client) })
	each(alterers, func(ctx context.Context) { p.alterOnce(ctx, client) })
	each(movers, func(ctx context.Context) { p.moveOnce(ctx, ledger) })
	each(1, func(ctx context.Context) { p.watch(ctx, client) })
	each(1, func(ctx context.Context) { p.glance(ctx, ledger) })
}

// again calls until the answer is final or ctx ends, and says which.
func (p *payments) again(ctx context.Context, call func(context.Context) error) bool {
	for {
		ended := p.calls()
		attempt, cancel := context.WithTimeout(ctx, callTime)
		err := call(attempt)
		cancel()
		if err != nil && ctx.Err() != nil {
			ended(nil) // the caller gave it up
			return false
		}
		if err != nil && atProcessor(err) {
			ended(nil) // nothing is the matter with the service
		} else if ended(err); err == nil {
			return true
		}
		if sleep(ctx, pause) != nil {
			return false
		}
	}
}

// atProcessor says whether an error tells that the processor has not answered yet: an answer like any other.
func atProcessor(err error) bool {
	switch reason(err) {
	case "Aborted IDEMPOTENCY_KEY_IN_FLIGHT", "Unavailable PROCESSOR_UNAVAILABLE":
		return true
	}
	return false
}

func (p *payments) chargeOnce(ctx context.Context, client paymentsv1.PaymentServiceClient) {
	if c := p.resend(); c != nil {
		ended := p.calls()
		attempt, cancel := context.WithTimeout(ctx, callTime)
		err := p.send(attempt, client, c)
		cancel()
		if ctx.Err() != nil || err != nil && atProcessor(err) {
			err = nil // the caller gave it up, or nothing is the matter with the service
		}
		ended(err)
		return
	}
	c := p.ask(p.kind())
	p.again(ctx, func(ctx context.Context) error { return p.send(ctx, client, c) })
}

// resend returns, one time in ten, a charge that was answered already: to be sent again.
func (p *payments) resend() *charge {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.charges) == 0 || p.random.IntN(oneAgain) != 0 {
		return nil
	}
	// One that is still in somebody's hands as often as one from long ago.
	from := 0
	if p.random.IntN(2) == 0 {
		from = max(len(p.charges)-2*together, 0)
	}
	if c := p.charges[from+p.random.IntN(len(p.charges)-from)]; !c.refused && (c.settled || !c.tried) {
		return c
	}
	return nil
}

// send sends a charge.
func (p *payments) send(ctx context.Context, client paymentsv1.PaymentServiceClient, c *charge) error {
	ended := p.attempt(c)
	var header metadataOf
	resp, err := client.Charge(ctx, c.request(), header.option())
	return ended(resp.GetPayment(), header.replayed(), err)
}

// streamOnce sends some charges by one stream, and again by another one until all are answered.
func (p *payments) streamOnce(ctx context.Context, client paymentsv1.PaymentServiceClient) {
	left := make(map[string]*charge, together)
	for range together {
		c := p.resend()
		if c == nil {
			c = p.ask(p.kind())
		}
		left[c.key] = c
	}
	for len(left) > 0 && ctx.Err() == nil {
		p.stream(ctx, client, left)
		if len(left) > 0 {
			_ = sleep(ctx, pause) // the loop looks at ctx
		}
	}
}

// stream sends charges by a stream, and takes those off that are answered.
func (p *payments) stream(ctx context.Context, client paymentsv1.PaymentServiceClient, left map[string]*charge) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	type flight struct {
		answered func(*paymentsv1.Payment, bool, error) error
		told     func(error)
	}
	flying := make(map[string]flight, len(left))
	for key, c := range left {
		flying[key] = flight{p.attempt(c), p.calls()}
	}
	stream, err := client.ProcessCharges(ctx)
	for _, c := range left {
		if err == nil {
			err = stream.Send(&paymentsv1.ProcessChargesRequest{Charge: c.request()})
		}
	}
	if stream != nil {
		err = nil // why it broke is for Recv to say
	}
	for err == nil && len(flying) > 0 {
		var resp *paymentsv1.ProcessChargesResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		f, ok := flying[resp.GetIdempotencyKey()]
		if !ok {
			p.wrong("a stream answers for %q, which was not asked for or is answered already", resp.GetIdempotencyKey())
			continue
		}
		delete(flying, resp.GetIdempotencyKey())
		answer := statusError(resp.GetError())
		if answer = f.answered(resp.GetPayment(), resp.GetReplayed(), answer); answer == nil {
			delete(left, resp.GetIdempotencyKey())
		}
		if answer != nil && atProcessor(answer) {
			answer = nil
		}
		f.told(answer)
	}
	for _, f := range flying {
		failed := f.answered(nil, false, err)
		if whole.Err() != nil {
			failed = nil // the caller gave it up
		}
		f.told(failed)
	}
}

// alterOnce takes the next step of a payment: captures, gives back or releases some of it.
func (p *payments) alterOnce(ctx context.Context, client paymentsv1.PaymentServiceClient) {
	c := p.pick()
	if c == nil {
		_ = sleep(ctx, pause) // until somebody has made one
		return
	}
	if p.again(ctx, func(ctx context.Context) error { return p.step(ctx, client, c) }) {
		p.mu.Lock()
		c.busy = false
		again := p.random.IntN(oneAgain) == 0
		p.mu.Unlock()
		if again {
			p.again(ctx, func(ctx context.Context) error { return p.step(ctx, client, c) })
		}
	}
}

// watch notes the charges of which others are told: they are stored, whatever becomes of the call that made them.
func (p *payments) watch(ctx context.Context, client paymentsv1.PaymentServiceClient) {
	stream, err := client.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{})
	for err == nil {
		var resp *paymentsv1.WatchTransactionsResponse
		if resp, err = stream.Recv(); err == nil && resp.GetTransaction() != nil {
			p.told(resp.GetTransaction().GetPayment())
		}
	}
	_ = sleep(ctx, pause)
}

// Settle implements Workload.
func (p *payments) Settle(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	client, ledger := paymentsv1.NewPaymentServiceClient(conn), paymentsv1.NewLedgerServiceClient(conn)
	charges, altered, moved := p.open()
	p.mu.Lock()
	for range min(known, len(p.charges)) {
		if c := p.charges[p.random.IntN(len(p.charges))]; !c.refused {
			charges = append(charges, c)
		}
	}
	p.mu.Unlock()
	for _, c := range charges {
		if err := insist(ctx, func() error { return p.send(ctx, client, c) }); err != nil {
			return fmt.Errorf("send a charge again: %w", err)
		}
	}
	for _, c := range altered {
		if err := p.step(ctx, client, c); err != nil {
			return fmt.Errorf("send the change of a payment again: %w", err)
		}
		p.mu.Lock()
		c.busy = false
		p.mu.Unlock()
	}
	for _, t := range moved {
		if err := p.move(ctx, ledger, t); err != nil {
			return fmt.Errorf("send a transfer again: %w", err)
		}
	}
	return nil
}

// Again implements Workload.
func (p *payments) Again(ctx context.Context, conn *grpc.ClientConn) {
	client, ledger := paymentsv1.NewPaymentServiceClient(conn), paymentsv1.NewLedgerServiceClient(conn)
	charges, altered, moved := p.open()
	p.mu.Lock()
	p.random.Shuffle(len(charges), func(i, j int) { charges[i], charges[j] = charges[j], charges[i] })
	p.mu.Unlock()
	attempt := func(call func(context.Context) error) {
		once, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if ctx.Err() == nil {
			_ = call(once) // it need not be answered
		}
	}
	for _, c := range charges {
		attempt(func(ctx context.Context) error { return p.send(ctx, client, c) })
	}
	for _, c := range altered {
		attempt(func(ctx context.Context) error { return p.step(ctx, client, c) })
	}
	for _, t := range moved {
		attempt(func(ctx context.Context) error { return p.move(ctx, ledger, t) })
	}
}

// open returns what has no answer: charges, those of which a change has none, and transfers.
func (p *payments) open() (charges, altered []*charge, moved []*transfer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.charges {
		if !c.settled && !c.refused {
			charges = append(charges, c)
		}
		if n := len(c.steps); n > 0 && c.steps[n-1].done.IsZero() {
			altered = append(altered, c)
		}
	}
	for _, t := range p.transfers {
		if !t.settled {
			moved = append(moved, t)
		}
	}
	return charges, altered, moved
}

// insist calls until the processor has answered: a service that was killed while it asked asks again by itself.
func insist(ctx context.Context, call func() error) error {
	for {
		err := call()
		if err == nil || !atProcessor(err) || sleep(ctx, pause) != nil {
			return err
		}
	}
}

// AnswersAlone implements Workload.
func (p *payments) AnswersAlone(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = on
}

// Probe implements Workload.
func (p *payments) Probe(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c := p.ask(plain)
	return p.send(ctx, paymentsv1.NewPaymentServiceClient(conn), c)
}

// Look implements Workload.
func (p *payments) Look(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	p.mu.Lock()
	var payment string
	for _, c := range p.charges {
		if c.id != "" && c.settled {
			payment = c.id
			break
		}
	}
	p.mu.Unlock()
	if payment == "" {
		return errNothingYet
	}
	client := paymentsv1.NewPaymentServiceClient(conn)
	if _, err := client.GetPayment(ctx, &paymentsv1.GetPaymentRequest{PaymentId: payment}); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if _, err := client.ListPayments(ctx, &paymentsv1.ListPaymentsRequest{PageSize: 10}); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return nil
}
