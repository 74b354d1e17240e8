package faults

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// The book must see what it is there for. It has a payment of which a refund was acknowledged and another was not, one that was declined,
// and one that nobody answered for.
func TestTheBookOnPaymentsSeesWhatIsNotAsItWas(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	const refunded, failed, open = "order-0", "order-1", "order-2"
	const (
		captured = paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED
		partly   = paymentsv1.PaymentState_PAYMENT_STATE_PARTIALLY_REFUNDED
	)
	payment := func(order, id string, state paymentsv1.PaymentState, captured, refunded int64) *paymentsv1.Payment {
		return &paymentsv1.Payment{
			OrderId: order, PaymentId: id, CustomerId: "ann", AmountCents: 400, Currency: currency, State: state,
			CapturedCents: captured, RefundedCents: refunded,
		}
	}
	type found map[string][]*paymentsv1.Payment
	for name, test := range map[string]struct {
		change        func(found)
		lost, doubled int
		wrong         string
	}{
		"nothing":                                    {change: func(found) {}},
		"what nobody answered for was done":          {change: func(f found) { f[refunded][0].RefundedCents = 200 }},
		"a charge that nobody answered for is there": {change: func(f found) { f[open] = []*paymentsv1.Payment{payment(open, "o", captured, 400, 0)} }},
		"a charge that an audit made is there":       {change: func(f found) { f[marker+"1"] = []*paymentsv1.Payment{{}} }},
		"a payment is not there":                     {change: func(f found) { delete(f, failed) }, lost: 1},
		"a payment with a refund is not there":       {change: func(f found) { delete(f, refunded) }, lost: 2},
		"a refund is not there":                      {change: func(f found) { f[refunded][0] = payment(refunded, "r", captured, 400, 0) }, lost: 1},
		"a payment is there twice":                   {change: func(f found) { f[failed] = append(f[failed], f[failed][0]) }, doubled: 1},
		"a refund that nobody asked for": {change: func(f found) {
			f[refunded][0] = payment(refunded, "r", paymentsv1.PaymentState_PAYMENT_STATE_REFUNDED, 400, 400)
		}, wrong: "nobody asked for"},
		"a decline that has moved money":  {change: func(f found) { f[failed][0].CapturedCents = 400 }, wrong: "nobody asked for"},
		"another amount":                  {change: func(f found) { f[failed][0].AmountCents = 401 }, wrong: "was to be 400"},
		"another customer":                {change: func(f found) { f[failed][0].CustomerId = "bob" }, wrong: "was to be 400"},
		"another id":                      {change: func(f found) { f[failed][0].PaymentId = "x" }, wrong: "is payment x"},
		"a payment that nobody asked for": {change: func(f found) { f["mallory"] = []*paymentsv1.Payment{{}} }, wrong: "which nobody asked for"},
		"a charge that is still asked of its processor": {change: func(f found) {
			f[open] = []*paymentsv1.Payment{payment(open, "o", paymentsv1.PaymentState_PAYMENT_STATE_PROCESSING, 0, 0)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			charges := []*charge{
				{order: refunded, id: "r", customer: "ann", amount: 400, seen: at, settled: true, steps: []step{{done: at}, {}}},
				{kind: declined, order: failed, id: "f", customer: "ann", amount: 400, asked: at.Add(-time.Second), seen: at, settled: true},
				{kind: remote, order: open, customer: "ann", amount: 400},
			}
			p := &payments{charges: charges, orders: map[string]*charge{refunded: charges[0], failed: charges[1], open: charges[2]}}
			all := found{
				refunded: {payment(refunded, "r", partly, 400, 100)},
				failed:   {payment(failed, "f", paymentsv1.PaymentState_PAYMENT_STATE_FAILED, 0, 0)},
			}
			test.change(all)
			a := p.compare(all, at)
			if a.Acknowledged != 3 || a.Lost != test.lost || a.Doubled != test.doubled {
				t.Errorf("%d acknowledged, %d lost, %d doubled; want 3, %d, %d", a.Acknowledged, a.Lost, a.Doubled, test.lost, test.doubled)
			}
			if wrong := strings.Join(a.Wrong, "; "); (wrong == "") != (test.wrong == "") || !strings.Contains(wrong, test.wrong) {
				t.Errorf("wrong: %q, want %q", wrong, test.wrong)
			}
			if n := p.Acknowledged(time.Time{}, at); n != 3 {
				t.Errorf("%d acknowledged", n)
			}
			if n := p.Acknowledged(at.Add(-time.Minute), at); n != 1 {
				t.Errorf("%d acknowledged of what was asked for in the last minute", n)
			}
			// What was acknowledged later need not be there yet.
			if a := p.compare(found{}, at.Add(-time.Second)); a.Acknowledged != 0 || a.Lost != 0 || p.Acknowledged(time.Time{}, at.Add(-time.Second)) != 0 {
				t.Errorf("a second before: %+v", a)
			}
		})
	}
}

func TestTheBookOnTransfersSeesWhatIsNotAsItWas(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	entry := func(number, amount int64) *paymentsv1.Entry {
		return &paymentsv1.Entry{TransferNumber: number, AmountCents: amount}
	}
	for name, test := range map[string]struct {
		from, to      []*paymentsv1.Entry
		lost, doubled int
		wrong         bool
	}{
		"as it was":                  {from: []*paymentsv1.Entry{entry(1, -5)}, to: []*paymentsv1.Entry{entry(1, 5)}},
		"what nobody answered for":   {from: []*paymentsv1.Entry{entry(1, -5), entry(2, -7)}, to: []*paymentsv1.Entry{entry(1, 5), entry(2, 7)}},
		"a transfer is not there":    {lost: 1},
		"a transfer is there twice":  {from: []*paymentsv1.Entry{entry(1, -5), entry(2, -7), entry(3, -5)}, to: []*paymentsv1.Entry{entry(1, 5), entry(2, 7), entry(3, 5)}, doubled: 1},
		"half of a transfer":         {from: []*paymentsv1.Entry{entry(1, -5)}, wrong: true},
		"a transfer of another size": {from: []*paymentsv1.Entry{entry(1, -6)}, to: []*paymentsv1.Entry{entry(1, 6)}, wrong: true},
	} {
		p := &payments{transfers: []*transfer{
			{from: 0, to: 1, amount: 5, number: 1, settled: true, done: at},
			{from: 0, to: 1, amount: 7},
			{from: 0, to: 1, amount: 9, settled: true, refused: true, done: at},
		}}
		var a Audit
		p.compareMoved([][]*paymentsv1.Entry{test.from, test.to}, at, &a)
		if a.Acknowledged != 1 || a.Lost != test.lost || a.Doubled != test.doubled || (len(a.Wrong) > 0) != test.wrong {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestTheInvariantsSeeBooksThatDoNotBalance(t *testing.T) {
	t.Parallel()
	account := func(kind paymentsv1.AccountKind, balance int64) *paymentsv1.Account {
		return &paymentsv1.Account{Owner: "bank.1", Kind: kind, BalanceCents: balance, OverdraftLimitCents: proto.Int64(overdraft)}
	}
	const general, customer = paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, paymentsv1.AccountKind_ACCOUNT_KIND_CUSTOMER
	for name, test := range map[string]struct {
		accounts []*paymentsv1.Account
		wrongs   int
	}{
		"all is well":                  {accounts: []*paymentsv1.Account{account(general, -500), account(general, 500)}},
		"something is missing":         {accounts: []*paymentsv1.Account{account(general, -400), account(general, 500)}, wrongs: 1},
		"it went to a customer":        {accounts: []*paymentsv1.Account{account(general, 100), account(customer, -100)}, wrongs: 1},
		"one has less than it may":     {accounts: []*paymentsv1.Account{account(general, -501), account(general, 501)}, wrongs: 1},
		"money came out of no account": {accounts: []*paymentsv1.Account{account(customer, 5)}, wrongs: 1},
	} {
		p := &payments{}
		if p.sum(test.accounts); len(p.wrongs) != test.wrongs {
			t.Errorf("%s: %q", name, p.wrongs)
		}
	}
}

func TestAKeyPromisesOnePayment(t *testing.T) {
	t.Parallel()
	answered := func(call, ret time.Duration, id string, replayed bool) *attempt {
		return &attempt{call: call, ret: ret, id: id, replayed: replayed}
	}
	lost := func(call time.Duration) *attempt { return &attempt{call: call} }
	for name, test := range map[string]struct {
		attempts []*attempt
		want     bool
	}{
		"one":                                    {[]*attempt{answered(1, 2, "a", false)}, true},
		"one and its replay":                     {[]*attempt{answered(1, 2, "a", false), answered(3, 4, "a", true)}, true},
		"the replay is answered first":           {[]*attempt{answered(1, 9, "a", false), answered(2, 4, "a", true)}, true},
		"an answer was lost":                     {[]*attempt{lost(1), answered(3, 4, "a", true)}, true},
		"a request was lost":                     {[]*attempt{lost(1), answered(3, 4, "a", false)}, true},
		"a replay of nothing":                    {[]*attempt{answered(1, 2, "a", true)}, false},
		"a replay before anything was asked for": {[]*attempt{answered(1, 2, "a", true), answered(3, 4, "a", false)}, false},
		"made twice":                             {[]*attempt{answered(1, 2, "a", false), answered(3, 4, "a", false)}, false},
		"a replay of another payment":            {[]*attempt{answered(1, 2, "a", false), answered(3, 4, "b", true)}, false},
	} {
		p := &payments{charges: []*charge{{attempts: test.attempts}}}
		if a := p.Ordered(); (len(a.Wrong) == 0) != test.want || test.want && a.Ordered != len(test.attempts) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestABalanceIsThatOfOneOrder(t *testing.T) {
	t.Parallel()
	moved := func(call, ret time.Duration, from, to int, amount int64) *transfer {
		return &transfer{from: from, to: to, amount: amount, call: call, ret: ret, settled: true}
	}
	for name, test := range map[string]struct {
		transfers []*transfer
		readings  []reading
		want      bool
	}{
		"read before and after":          {[]*transfer{moved(3, 4, 0, 1, 10)}, []reading{{0, 0, 1, 2}, {0, -10, 5, 6}, {1, 10, 5, 6}}, true},
		"read meanwhile":                 {[]*transfer{moved(1, 9, 0, 1, 10)}, []reading{{0, 0, 2, 3}, {0, -10, 5, 6}}, true},
		"gone again":                     {[]*transfer{moved(1, 9, 0, 1, 10)}, []reading{{0, -10, 2, 3}, {0, 0, 5, 6}}, false},
		"not there after the answer":     {[]*transfer{moved(1, 2, 0, 1, 10)}, []reading{{1, 0, 5, 6}}, false},
		"moved twice":                    {[]*transfer{moved(1, 2, 0, 1, 10)}, []reading{{1, 20, 5, 6}}, false},
		"without an answer, done":        {[]*transfer{{from: 0, to: 1, amount: 10, call: 1}}, []reading{{1, 0, 2, 3}, {1, 10, 5, 6}}, true},
		"without an answer, not done":    {[]*transfer{{from: 0, to: 1, amount: 10, call: 1}}, []reading{{1, 0, 5, 6}}, true},
		"refused though there is enough": {[]*transfer{{from: 0, to: 1, amount: 500, call: 1, ret: 2, settled: true, refused: true}}, nil, false},
		"refused":                        {[]*transfer{moved(1, 2, 0, 1, 1), {from: 0, to: 1, amount: 500, call: 3, ret: 4, settled: true, refused: true}}, nil, true},
		"overdrawn":                      {[]*transfer{moved(1, 2, 0, 1, 501)}, nil, false},
	} {
		p := &payments{accounts: []string{"a", "b"}, transfers: test.transfers, readings: test.readings}
		if a := p.Ordered(); (len(a.Wrong) == 0) != test.want {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestEachStepOfAPaymentStandsSomewhereElse(t *testing.T) {
	t.Parallel()
	for k := plain; k <= remote; k++ {
		c := &charge{kind: k, amount: 100}
		for n := 0; ; n++ {
			at, ok := c.after(n)
			if !ok {
				break
			}
			if got := c.steppedTo(at); got != n {
				t.Errorf("kind %d stands after step %d where it stands after step %d", k, n, got)
			}
		}
	}
}
