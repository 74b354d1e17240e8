package auth

import (
	"errors"

	"github.com/concordat-dev/concordat/kit/fault"
)

// What callers may be told.
var (
	// ErrUserNotFound: there is no such user, neither here nor in users.v1. Metadata: user_id.
	ErrUserNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user")
	// ErrEmailTaken: another account has the email.
	ErrEmailTaken = fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken")
	// ErrInvalidCredentials: the email and the password do not belong together; which of them is wrong is not said.
	ErrInvalidCredentials = fault.New(fault.Unauthenticated, "INVALID_CREDENTIALS", "the email and the password do not belong together")
	// ErrAccountLocked: the credentials are right and the account is locked.
	ErrAccountLocked = fault.New(fault.PermissionDenied, "ACCOUNT_LOCKED", "the account is locked")
	// ErrAccountDeactivated: the credentials are right and the account is deactivated.
	ErrAccountDeactivated = fault.New(fault.PermissionDenied, "ACCOUNT_DEACTIVATED", "the account is deactivated")
	// ErrRefreshTokenInvalid: the refresh token is unknown, expired, or of a session that has ended.
	ErrRefreshTokenInvalid = fault.New(fault.Unauthenticated, "REFRESH_TOKEN_INVALID", "the refresh token is not valid: sign in again")
	// ErrRefreshTokenReused: the refresh token was used before; its session is closed.
	ErrRefreshTokenReused = fault.New(fault.Unauthenticated, "REFRESH_TOKEN_REUSED", "the refresh token was used before, so its session is closed: sign in again")
	// ErrETagMismatch: the account changed since its etag was read.
	ErrETagMismatch = fault.New(fault.Aborted, "ETAG_MISMATCH", "the account has changed: read it again and decide anew")
	// ErrStateConflict: the change is not possible from the state of the account. Metadata: state.
	ErrStateConflict = fault.New(fault.FailedPrecondition, "STATE_CONFLICT", "the state of the account does not allow this")
	// ErrRequestIDReused: the request id belongs to a request with other content.
	ErrRequestIDReused = fault.New(fault.FailedPrecondition, "REQUEST_ID_REUSED", "the request_id was used for a request with other content")
	// ErrSignUpInProgress: a sign-up with this email is under way. It says when to come back.
	ErrSignUpInProgress = fault.New(fault.Aborted, "SIGN_UP_IN_PROGRESS", "a sign-up with this email is under way").
				WithRetryAfter(signUpRetryAfter)
	// ErrAdminCodeInvalid: the code for the first administrator is wrong, void, or given to another sign-up.
	ErrAdminCodeInvalid = fault.New(fault.PermissionDenied, "ADMIN_CODE_INVALID", "the code for the first administrator is wrong or used up")
	// ErrLastAdmin: the change would leave no administrator who may act.
	ErrLastAdmin = fault.New(fault.FailedPrecondition, "LAST_ADMIN", "this is the only administrator who may act")
	// ErrUpstreamUnavailable: users.v1 was needed and does not answer. Every service has this reason in common, so it
	// is of the domain policy.v1. Metadata: upstream.
	ErrUpstreamUnavailable = fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE", "another service that is needed does not answer").
				WithDomain(fault.Domain).With("upstream", "users")
)

// Faults returns every fault above, for the test that finds each reason in the contract.
func Faults() []*fault.Fault {
	return []*fault.Fault{
		ErrUserNotFound, ErrEmailTaken, ErrInvalidCredentials, ErrAccountLocked, ErrAccountDeactivated,
		ErrRefreshTokenInvalid, ErrRefreshTokenReused, ErrETagMismatch, ErrStateConflict, ErrRequestIDReused,
		ErrSignUpInProgress, ErrAdminCodeInvalid, ErrLastAdmin, ErrUpstreamUnavailable,
	}
}

// What stores and profiles tell the domain, and callers never see.
var (
	// ErrProfileRefused: users.v1 answered, and will never take this profile.
	ErrProfileRefused = errors.New("users.v1 refuses the profile for good")
	// ErrNoRecord: the store has no such row.
	ErrNoRecord = errors.New("no such record")
	// ErrUserIDTaken: an account has this id already.
	ErrUserIDTaken = errors.New("the user id is taken")
	// ErrRequestIDTaken: a request of this kind has this id already.
	ErrRequestIDTaken = errors.New("the request id is taken")
	// ErrAdminCodeTaken: an unfinished sign-up holds this code for the first administrator.
	ErrAdminCodeTaken = errors.New("the administrator's code is held by another sign-up")
)
