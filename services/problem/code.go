package problem

import "net/http"

// A Code says what kind of problem it is. The set is closed, and a code never changes its meaning. It is a plain
// string on the wire.
type Code string

// The codes, as the package comment explains them.
const (
	InvalidJSON        Code = "invalid_json"
	InvalidMember      Code = "invalid_member"
	MissingMember      Code = "missing_member"
	BodyTooLarge       Code = "body_too_large"
	ValueTooLarge      Code = "value_too_large"
	KeyTooLong         Code = "key_too_long"
	UnknownStore       Code = "unknown_store"
	UnknownOperator    Code = "unknown_operator"
	Unsupported        Code = "unsupported"
	CallbackNotAllowed Code = "callback_not_allowed"
	HostNotAllowed     Code = "host_not_allowed"
	CrossOrigin        Code = "cross_origin"
	Unauthorized       Code = "unauthorized"
	Forbidden          Code = "forbidden"
	NotFound           Code = "not_found"
	UnknownTarget      Code = "unknown_target"
	MethodNotAllowed   Code = "method_not_allowed"
	Conflict           Code = "conflict"
	TooManyRequests    Code = "too_many_requests"
	Misdirected        Code = "misdirected"
	Unroutable         Code = "unroutable"
	BadGateway         Code = "bad_gateway"
	NoEndpoint         Code = "no_endpoint"
	CircuitOpen        Code = "circuit_open"
	Overloaded         Code = "overloaded"
	Unavailable        Code = "unavailable"
	OutcomeUnknown     Code = "outcome_unknown"
	Timeout            Code = "timeout"
	LoopDetected       Code = "loop_detected"
	Internal           Code = "internal"
)

// Codes lists every code, in the order of the package comment.
func Codes() []Code {
	return []Code{
		InvalidJSON, InvalidMember, MissingMember, BodyTooLarge, ValueTooLarge, KeyTooLong, UnknownStore,
		UnknownOperator, Unsupported, CallbackNotAllowed, HostNotAllowed, CrossOrigin, Unauthorized, Forbidden,
		NotFound, UnknownTarget, MethodNotAllowed, Conflict, TooManyRequests, Misdirected, Unroutable, BadGateway, NoEndpoint, CircuitOpen,
		Overloaded, Unavailable, OutcomeUnknown, Timeout, LoopDetected, Internal,
	}
}

// Status is the HTTP status that goes with the code.
func (c Code) Status() int {
	switch c {
	case InvalidJSON, InvalidMember, MissingMember, KeyTooLong, UnknownOperator, Unsupported:
		return http.StatusBadRequest
	case Unauthorized:
		return http.StatusUnauthorized
	case CallbackNotAllowed, HostNotAllowed, CrossOrigin, Forbidden:
		return http.StatusForbidden
	case UnknownStore, NotFound, UnknownTarget:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case Conflict:
		return http.StatusConflict
	case TooManyRequests:
		return http.StatusTooManyRequests
	case BodyTooLarge, ValueTooLarge:
		return http.StatusRequestEntityTooLarge
	case Misdirected:
		return http.StatusMisdirectedRequest
	case Unroutable:
		return http.StatusUnprocessableEntity
	case BadGateway:
		return http.StatusBadGateway
	case NoEndpoint, CircuitOpen, Overloaded, Unavailable:
		return http.StatusServiceUnavailable
	case OutcomeUnknown, Timeout:
		return http.StatusGatewayTimeout
	case LoopDetected:
		return http.StatusLoopDetected
	default:
		return http.StatusInternalServerError
	}
}
