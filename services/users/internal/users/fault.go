package users

import "github.com/concordat-dev/concordat/kit/fault"

// What the service and its stores answer with when they refuse.
var (
	// ErrNotFound: there is no such user. Metadata: user_id.
	ErrNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user")
	// ErrEmailTaken: another user has the email.
	ErrEmailTaken = fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "another user has this email")
	// ErrIDTaken: another user has the id. Metadata: user_id.
	ErrIDTaken = fault.New(fault.AlreadyExists, "USER_ID_TAKEN", "another user has this id")
	// ErrRequestIDReused: the caller has used the request id for another request.
	ErrRequestIDReused = fault.New(fault.FailedPrecondition, "REQUEST_ID_REUSED", "the request id was used for another request")
	// ErrEmailInvalid: the email is one that is not taken. It has a violation.
	ErrEmailInvalid = fault.New(fault.InvalidArgument, "EMAIL_INVALID", "the email is not valid")
	// ErrMaskInvalid: the mask of an update names what cannot be changed, or clears what must be there. It has a violation
	// for each path.
	ErrMaskInvalid = fault.New(fault.InvalidArgument, "UPDATE_MASK_INVALID", "the update mask is not valid")
	// ErrFilterInvalid: the filter cannot be understood. It has a violation.
	ErrFilterInvalid = fault.New(fault.InvalidArgument, "FILTER_INVALID", "the filter is not valid")
	// ErrOrderInvalid: users cannot be put in this order. It has a violation.
	ErrOrderInvalid = fault.New(fault.InvalidArgument, "ORDER_BY_INVALID", "the order is not valid")
	// ErrETagMismatch: the user has changed since the etag was given out. Metadata: user_id.
	ErrETagMismatch = fault.New(fault.Aborted, "ETAG_MISMATCH", "the user has changed meanwhile")
	// ErrDeleted: the user is deleted. Metadata: user_id.
	ErrDeleted = fault.New(fault.FailedPrecondition, "USER_DELETED", "the user is deleted")
	// ErrErased: the user was erased. Metadata: user_id.
	ErrErased = fault.New(fault.FailedPrecondition, "USER_ERASED", "the user was erased")
	// ErrFieldNotYours: only services and administrators may change the field. Metadata: field.
	ErrFieldNotYours = fault.New(fault.PermissionDenied, "FIELD_NOT_YOURS", "only services and administrators may change this field")
	// ErrTooManySnapshots: as many snapshots are held as the store holds at once. It says when to come back.
	ErrTooManySnapshots = fault.New(fault.ResourceExhausted, "TOO_MANY_SNAPSHOTS", "too many snapshots are being streamed")
)

// Faults returns every fault of the domain, for tests that must know all.
func Faults() []*fault.Fault {
	return []*fault.Fault{
		ErrNotFound, ErrEmailTaken, ErrIDTaken, ErrRequestIDReused, ErrEmailInvalid, ErrMaskInvalid, ErrFilterInvalid, ErrOrderInvalid,
		ErrETagMismatch, ErrDeleted, ErrErased, ErrFieldNotYours, ErrTooManySnapshots,
	}
}
