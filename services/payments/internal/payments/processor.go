package payments

import "context"

// OperationKind is what a processor is asked for.
type OperationKind string

// The operations.
const (
	OpAuthorize OperationKind = "AUTHORIZE" // hold the amount
	OpCharge    OperationKind = "CHARGE"    // authorize and capture in one
	OpCapture   OperationKind = "CAPTURE"
	OpCancel    OperationKind = "CANCEL"
	OpRefund    OperationKind = "REFUND"
)

// Operation is one request to a processor.
type Operation struct {
	// Key makes a repeated request the same request: a processor does for each key what it is asked for at most once, and
	// answers a repetition as it answered the first time.
	Key     string
	Kind    OperationKind
	Payment ID
	// Token is what the money is taken from, empty for what the customer has on file. It is a secret: it is kept only
	// until the outcome is known.
	Token    string
	Amount   int64
	Currency Currency
	// Final says of a capture that what is left after it is released.
	Final bool
}

// Processor is who moves money in the world outside. It is safe for concurrent use.
type Processor interface {
	// Immediate says that Process answers this operation at once, without a network, and always the same: then nothing is
	// written down before it is asked.
	Immediate(op Operation) bool
	// Process does what the operation says, once for its key. NotDeclined means that it was done, a decline that it was not
	// and will not be: the answer to a key is final. An error means that it is not known whether it was done: asking again
	// with the same key tells. It returns when ctx ends.
	Process(ctx context.Context, op Operation) (Decline, error)
}
