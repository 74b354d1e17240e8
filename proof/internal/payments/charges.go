package payments

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/proof/internal/load"
)

// book makes charges, each tenth of which has the key, and the content, of the one before. It is safe for concurrent use.
type book struct{ next atomic.Int64 }

// charge returns the next charge.
func (b *book) charge() *paymentsv1.ChargeRequest {
	n := b.next.Add(1) - 1
	if n%10 == 9 {
		n--
	}
	return &paymentsv1.ChargeRequest{
		OrderId: "order-" + strconv.FormatInt(n, 10), AmountCents: 150, Currency: "EUR", IdempotencyKey: "key-" + strconv.FormatInt(n, 10),
		CustomerId: fmt.Sprintf("0197a000-0000-7000-8000-%012x", n*7919%customers),
	}
}

// keys returns how many keys the charges so far have.
func (b *book) keys() int {
	n := int(b.next.Load())
	return n - n/10
}

// request is the charges as unary calls.
func (b *book) request() *load.Request {
	return &load.Request{
		Method: paymentsv1.PaymentService_Charge_FullMethodName, Timeout: callTime,
		Choose: func() []byte { return encoded(b.charge()) },
		Check: func(answer []byte) error {
			payment, _ := field(answer, 1)
			return captured(payment)
		},
	}
}

// dialog is the charges as the messages of a stream.
func (b *book) dialog() *load.Dialog {
	return &load.Dialog{
		Method: paymentsv1.PaymentService_ProcessCharges_FullMethodName, Timeout: streamTime,
		Next: func() ([]byte, string) {
			charge := b.charge()
			return encoded(&paymentsv1.ProcessChargesRequest{Charge: charge}), charge.GetIdempotencyKey()
		},
		Answer: func(answer []byte) (string, error) {
			key, _ := field(answer, 1)
			payment, _ := field(answer, 2)
			err := captured(payment)
			if failed, _ := field(answer, 3); failed != nil { // a status, whose message is text
				text, _ := field(failed, 2)
				err = fmt.Errorf("a charge of a stream fails: %s", text)
			}
			return string(key), err
		},
	}
}

// encoded returns a message that consists of texts of ours and numbers, and so can be encoded.
func encoded(m proto.Message) []byte {
	text, _ := proto.Marshal(m)
	return text
}

// captured returns an error unless the encoded payment has its money. It decodes no more than that: the client has the processors of
// the service.
func captured(payment []byte) error {
	if _, state := field(payment, 6); paymentsv1.PaymentState(state) != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED {
		return fmt.Errorf("a charge made a payment that is %s, not captured", paymentsv1.PaymentState(state))
	}
	return nil
}

// field returns the value of a field of an encoded message, bytes or a number, nothing where it is not there.
func field(message []byte, number protowire.Number) (value []byte, n uint64) {
	for len(message) > 0 {
		num, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil, 0
		}
		message = message[size:]
		if num == number && kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(message)
			return value, 0
		}
		if num == number && kind == protowire.VarintType {
			n, _ = protowire.ConsumeVarint(message)
			return nil, n
		}
		if size = protowire.ConsumeFieldValue(num, kind, message); size < 0 {
			return nil, 0
		}
		message = message[size:]
	}
	return nil, 0
}
