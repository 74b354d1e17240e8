package fault

// Kind is the class of a fault: what a caller can do about it. The kinds are the error codes of gRPC under
// names of our own, so that a domain needs not import it.
type Kind uint8

// The kinds. Internal is the zero value: a fault whose kind was forgotten is masked, not leaked.
const (
	// Internal: something broke that is not the caller's doing. Its text is not shown.
	Internal Kind = iota
	// InvalidArgument: the request is wrong whatever the state of the system.
	InvalidArgument
	// NotFound: what was asked for does not exist, or the caller may not know that it does.
	NotFound
	// AlreadyExists: what was to be made is there already.
	AlreadyExists
	// FailedPrecondition: the system is not in the state that the request needs; a retry alone does not help.
	FailedPrecondition
	// Aborted: a concurrent change came between; retry the whole sequence.
	Aborted
	// PermissionDenied: the caller is known and may not.
	PermissionDenied
	// Unauthenticated: the caller has not proved who it is.
	Unauthenticated
	// ResourceExhausted: a quota or a limit is used up.
	ResourceExhausted
	// Unavailable: not now; retry the call after a while.
	Unavailable
	// OutOfRange: the request reaches past what there is, such as a resume token that is too old.
	OutOfRange
	// DeadlineExceeded: the time for the call was over; whether it took effect is unknown.
	DeadlineExceeded
	// Canceled: the caller gave up.
	Canceled
	// Unimplemented: there is no such operation here.
	Unimplemented
	// DataLoss: stored data is gone or damaged beyond mending.
	DataLoss
)

var kindNames = [...]string{
	Internal:           "INTERNAL",
	InvalidArgument:    "INVALID_ARGUMENT",
	NotFound:           "NOT_FOUND",
	AlreadyExists:      "ALREADY_EXISTS",
	FailedPrecondition: "FAILED_PRECONDITION",
	Aborted:            "ABORTED",
	PermissionDenied:   "PERMISSION_DENIED",
	Unauthenticated:    "UNAUTHENTICATED",
	ResourceExhausted:  "RESOURCE_EXHAUSTED",
	Unavailable:        "UNAVAILABLE",
	OutOfRange:         "OUT_OF_RANGE",
	DeadlineExceeded:   "DEADLINE_EXCEEDED",
	Canceled:           "CANCELED",
	Unimplemented:      "UNIMPLEMENTED",
	DataLoss:           "DATA_LOSS",
}

// Kinds returns every kind, for tables that must be complete.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// String returns the name in capitals, such as "NOT_FOUND". A kind that does not exist is "INTERNAL".
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		return kindNames[Internal]
	}
	return kindNames[k]
}
