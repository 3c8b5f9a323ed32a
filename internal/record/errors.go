package record

import (
	"fmt"
	"time"
)

// Code is a value of `extensions.code` in an answer. Clients branch on it; the message is for people.
type Code string

// The codes of the API's contract. gqlgen adds GRAPHQL_PARSE_FAILED and GRAPHQL_VALIDATION_FAILED.
const (
	Unauthenticated Code = "UNAUTHENTICATED"
	Forbidden       Code = "FORBIDDEN"
	NotFound        Code = "NOT_FOUND"
	Conflict        Code = "CONFLICT"
	AlreadyExists   Code = "ALREADY_EXISTS"
	BadUserInput    Code = "BAD_USER_INPUT"
	AccountLocked   Code = "ACCOUNT_LOCKED"
	RateLimited     Code = "RATE_LIMITED"
	CSRFRejected    Code = "CSRF_REJECTED"
	TooComplex      Code = "TOO_COMPLEX"
	Unavailable     Code = "UNAVAILABLE"
	Internal        Code = "INTERNAL"
)

// Codes are all of them.
func Codes() []Code {
	return []Code{
		Unauthenticated, Forbidden, NotFound, Conflict, AlreadyExists, BadUserInput, AccountLocked, RateLimited, CSRFRejected, TooComplex,
		Unavailable, Internal,
	}
}

// Error is an error that a client may see. Everything else that a resolver returns is INTERNAL: it is logged
// and hidden.
type Error struct {
	Code    Code
	Message string

	// Fields names the input fields, or arguments, that are wrong.
	Fields []string
	// RetryAfter is when to try again; zero where that is of no use.
	RetryAfter time.Duration
	// Conflict is set where Code is Conflict.
	Conflict *ConflictState
	// Err is the cause, for the log only.
	Err error
}

// ConflictState tells a client whose write was refused what stands there now.
type ConflictState struct {
	Type            string         // the record's GraphQL type
	ID              string         // the record's global id
	ExpectedVersion int            // what the client sent
	CurrentVersion  int            // what the record has
	Current         map[string]any // the record's readable fields under their GraphQL names
	Fields          []string       // what changed since ExpectedVersion; nil if the change log no longer knows
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Message, e.Err)
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// Extensions returns what belongs in the answer's `extensions` for e, except the request id.
func (e *Error) Extensions() map[string]any {
	ext := map[string]any{"code": string(e.Code)}
	if len(e.Fields) > 0 {
		ext["fields"] = e.Fields
	}
	if e.RetryAfter > 0 {
		ext["retryAfter"] = e.RetryAfter.Seconds()
	}
	if c := e.Conflict; c != nil {
		ext["type"], ext["id"] = c.Type, c.ID
		ext["expectedVersion"], ext["currentVersion"] = c.ExpectedVersion, c.CurrentVersion
		ext["current"], ext["fields"] = c.Current, c.Fields
	}
	return ext
}

// badInput returns a BAD_USER_INPUT error about one field or argument.
func badInput(field, format string, args ...any) *Error {
	return &Error{Code: BadUserInput, Message: fmt.Sprintf(format, args...), Fields: []string{field}}
}

// tooComplex returns a TOO_COMPLEX error about one field or argument.
func tooComplex(field, format string, args ...any) *Error {
	err := badInput(field, format, args...)
	err.Code = TooComplex
	return err
}
