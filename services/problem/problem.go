package problem

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// ContentType is the media type of a Problem.
const ContentType = "application/problem+json"

//go:embed openapi.yaml
var document []byte

// OpenAPI is the OpenAPI document that defines the Problem schema. Services' documents refer to it as
// "../problem/openapi.yaml".
func OpenAPI() []byte { return document }

// A Problem is an error as callers see it, and an error of Go. It is not changed once it has been returned.
type Problem struct { //nolint:errname // it is named as RFC 9457 names it
	Type     string   `json:"type"`               // always "about:blank"
	Title    string   `json:"title"`              // the phrase of Status
	Status   int      `json:"status"`             // the HTTP status
	Detail   string   `json:"detail"`             // a sentence: what was asked, what is wrong, what to do
	Instance string   `json:"instance,omitempty"` // the request's id, set by Write
	Code     Code     `json:"code"`
	Member   string   `json:"member,omitempty"` // dotted path of the member at fault
	Keys     []string `json:"keys,omitempty"`   // the keys in conflict, when several were asked for

	Stream          string `json:"stream,omitempty"`          // the stream of events in conflict, as category/id
	ExpectedVersion *int64 `json:"expectedVersion,omitempty"` // that it was to have
	ActualVersion   *int64 `json:"actualVersion,omitempty"`   // that it has

	retryAfter time.Duration
	challenge  string
	cause      error
}

// New makes a problem of the code with a sentence.
func New(code Code, format string, args ...any) *Problem {
	status := code.Status()
	p := &Problem{
		Type:   "about:blank",
		Title:  http.StatusText(status),
		Status: status,
		Detail: fmt.Sprintf(format, args...),
		Code:   code,
	}
	if status == http.StatusServiceUnavailable {
		p.retryAfter = time.Second
	}
	return p
}

// Invalid is the problem of a member with a value that is not allowed. The sentence is "member {member} {what}".
func Invalid(member, what string, args ...any) *Problem {
	return New(InvalidMember, "member %s %s", member, fmt.Sprintf(what, args...)).At(member)
}

// Missing is the problem of a required member that is absent, null or empty.
func Missing(member string) *Problem {
	return New(MissingMember, "member %s is required and is missing, null or empty", member).At(member)
}

// Require returns Missing of the first member whose value is empty, or nil. It takes names and values in turn:
// Require("topic", body.Topic, "callbackUrl", body.CallbackURL).
func Require(members ...string) error {
	for i := 0; i+1 < len(members); i += 2 {
		if members[i+1] == "" {
			return Missing(members[i])
		}
	}
	return nil
}

// RequireUUID returns Missing of the member if its value is empty, Invalid if it is no UUID as it is written in lower case, or nil: an id has
// one form, since it is compared, and part of keys.
func RequireUUID(member, value string) error {
	if value == "" {
		return Missing(member)
	}
	if parsed, err := uuid.Parse(value); err != nil || parsed.String() != value {
		return Invalid(member, "is no UUID in lower case")
	}
	return nil
}

// At names the member of the body that is at fault.
func (p *Problem) At(member string) *Problem {
	p.Member = member
	return p
}

// RetryAfter says when to try again: the value of Retry-After, in seconds, rounded up.
func (p *Problem) RetryAfter(d time.Duration) *Problem {
	p.retryAfter = (d + time.Second - 1).Truncate(time.Second)
	return p
}

// Challenge says, to clients, by what a request that is unauthorized would be taken: the value of WWW-Authenticate.
func (p *Problem) Challenge(challenge string) *Problem {
	p.challenge = challenge
	return p
}

// Because keeps the error underneath for the log and for errors.Is. Callers over HTTP never see it.
func (p *Problem) Because(cause error) *Problem {
	p.cause = cause
	return p
}

// Error is the code and the sentence.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// Unwrap is the error given to Because.
func (p *Problem) Unwrap() error { return p.cause }

// From is the problem that err is or wraps. Any other error is internal, with err as the cause and nothing of it in
// the sentence.
func From(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return New(Internal, "the node failed to do this; its log says why under the request's id").Because(err)
}

// An Observer is a http.ResponseWriter that wants to know the problem it answers with, for its log.
type Observer interface {
	ObserveProblem(p *Problem)
}

// Write answers with the problem that err is, as From finds it. The instance is the response's X-Request-Id.
func Write(w http.ResponseWriter, err error) {
	answer := *From(err)
	if o, ok := w.(Observer); ok {
		o.ObserveProblem(&answer)
	}
	answer.Instance = w.Header().Get("X-Request-Id")
	body, marshalErr := json.Marshal(answer)
	if marshalErr != nil { // strings and integers only: encoding/json replaces what is not UTF-8
		body = []byte("{}")
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	if answer.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(answer.retryAfter.Seconds())))
	}
	if answer.challenge != "" {
		h.Set("WWW-Authenticate", answer.challenge)
	}
	w.WriteHeader(answer.Status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone; there is no one else to tell
}
