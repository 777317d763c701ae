package connect

import "net/http"

// A Code is what became of a call, in a binary response. A code never changes its meaning.
type Code byte

// The codes, and the statuses of text responses that they stand for.
const (
	CodeOK              Code = 0 // 2xx
	CodeInvalid         Code = 1 // 400, and other 4xx
	CodeUnauthorized    Code = 2 // 401
	CodeForbidden       Code = 3 // 403: not in the manifest, or the service refuses it
	CodeNotFound        Code = 4 // 404
	CodeConflict        Code = 5 // 409, 412
	CodeTooManyRequests Code = 6 // 429: the limits of the session, or the service's
	CodeFailed          Code = 7 // 500, and other 5xx
	CodeUnavailable     Code = 8 // 503: nothing was done
	CodeTimeout         Code = 9 // 502, 504: it may or may not have been done
)

// codeOf is the code of a status.
func codeOf(status int) Code {
	switch status {
	case http.StatusUnauthorized:
		return CodeUnauthorized
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return CodeConflict
	case http.StatusTooManyRequests:
		return CodeTooManyRequests
	case http.StatusServiceUnavailable:
		return CodeUnavailable
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return CodeTimeout
	}
	switch {
	case status >= 500:
		return CodeFailed
	case status >= 300:
		return CodeInvalid
	}
	return CodeOK
}

// The codes with which the gateway closes a connection (RFC 6455, 7.4).
const (
	CloseNormal     = 1000 // the client closed it
	CloseGoingAway  = 1001 // the node shuts down: reconnect, to another
	CloseMalformed  = 1007 // a message is no frame: do not send it again
	ClosePolicy     = 1008 // a limit was passed for long: the reason says which
	CloseTooBig     = 1009 // a message is too long
	CloseTryAgain   = 1013 // the client was too slow, or the node is: reconnect
	CloseEnded      = 4001 // the session has ended: log in
	CloseReplaced   = 4002 // the session has a newer connection: do not reconnect
	CloseUnanswered = 4003 // nothing was heard, or no event acknowledged, for too long: reconnect
	CloseOverflow   = 4005 // more events waited than are kept, and are gone: reconnect with an access token, and look anew
	CloseExpired    = 4004 // the session's time is over, as far as the gateway knows: reconnect with an access token
)
