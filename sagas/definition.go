package sagas

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Compensating is what a transition goes to that has the steps undone, the last first. It is no name for a state.
const Compensating = "compensating"

// A Definition says what a saga does, with data of type S, which is JSON. Handlers look at nothing but what they are given. Build checks it.
type Definition[S any] struct {
	// Name is lower-case letters, digits and dashes, 1 to 48 bytes. Required.
	Name string

	// Version tells definitions of one name apart that run side by side. New instances begin with the highest. Raise it when instances that are
	// under way could not go on with a changed definition: those in a state that it does not have park. Default: 1.
	Version int

	// Start are the events that begin an instance, each When or Choose. Required.
	Start []On[S]

	// States are the states in the order in which they are drawn. Required.
	States []State[S]

	// Policies are for what comes when no state waits for it.
	Policies Policies

	// Retry is for calls, and for undoing.
	Retry Retry
}

// A State is what an instance waits in.
type State[S any] struct {
	// Name is lower-case letters, digits and dashes, 1 to 48 bytes. Required.
	Name string

	// Do is issued when the state is entered. Default: nothing.
	Do Command[S]

	// Undo is issued when the saga is compensated after Do was issued, whether or not Do succeeded. A state that does something has it, or says
	// that it has none.
	Undo Command[S]

	// NoUndo says that Do need not be undone.
	NoUndo bool

	// On is what the state waits for. What waits for events has an After too, or says that it waits as long as it takes.
	On []On[S]

	// NoTimeout says that the state may last for ever, if no event comes.
	NoTimeout bool

	// End: an instance that is here has completed. Its Do is at most an event.
	End bool
}

// Policies say what becomes of messages that no state waits for.
type Policies struct {
	// Early is for one that another state of the saga waits for. Default: Keep.
	Early Policy
	// Late is for one whose instance has ended, or is being compensated. Default: Ignore.
	Late Policy
	// Duplicate is for one that was taken before, and for one that would start an instance that there is. Default: Ignore.
	Duplicate Policy
	// Unknown is for one whose instance does not exist, and which starts none. Default: DeadLetter. Where a topic has events that are not about
	// sagas, Ignore.
	Unknown Policy
}

// A Policy says what becomes of a message.
type Policy string

// The policies.
const (
	// Ignore: it is counted, and nothing else.
	Ignore Policy = "ignore"
	// Keep: it waits in the instance for a state that takes it. Only for Early.
	Keep Policy = "keep"
	// Park: the instance is parked with it, for a person. One that is unknown begins an instance that waits for its start.
	Park Policy = "park"
	// DeadLetter: the bus keeps it as a dead letter. An answer or a timeout, which is no message of the bus, is ignored.
	DeadLetter Policy = "dead-letter"
)

// Retry says how often is tried what does not succeed.
type Retry struct {
	// Attempts is how often a call is made, or an undo is issued, before the instance parks. Default: 8.
	Attempts int
	// Pause is before the second attempt; each one after it is twice as long, up to 60 times this one. Default: 1 s.
	Pause time.Duration
	// Timeout bounds one call, and how long an undo that is an event is waited for before it is published again. Default: 30 s.
	Timeout time.Duration
}

// A Topic is a topic of the bus whose events belong to instances.
type Topic[E any] struct{ source }

// source is a topic without the type of its event.
type source struct {
	topic  string
	key    func(body []byte) (string, error)
	narrow func(body []byte) ([]byte, error) // nil: the whole event is entered
}

// A Source is a Topic, whatever its events are.
type Source interface{ from() source }

func (s source) from() source { return s }

// Correlated says to which instance an event of a topic belongs: the key, 1 to 255 bytes. An empty key belongs to none, which is an unknown
// message. All definitions of one name have the same key for an event.
func Correlated[E any](topic string, key func(e *E) string) Topic[E] {
	return Topic[E]{source{topic: topic, key: func(body []byte) (string, error) {
		e := new(E)
		if err := decode(body, e); err != nil {
			return "", err
		}
		return key(e), nil
	}}}
}

// Narrowed enters of each event only what E has of it: what it says beyond that, as of a person, is in no instance and in no log of the saga.
func (t Topic[E]) Narrowed() Topic[E] {
	t.narrow = func(body []byte) ([]byte, error) {
		e := new(E)
		if err := decode(body, e); err != nil {
			return nil, err
		}
		return json.Marshal(e)
	}
	return t
}

// An On is what a state waits for, and what then happens.
type On[S any] struct {
	kind   Kind
	source source // of an event
	after  time.Duration
	to     []string
	takes  func(body jsontext.Value) bool // nil: whatever it says
	apply  func(s *S, body jsontext.Value) (next string, err error)
}

// When goes to a state at an event. apply changes the data; nil: nothing changes. Its error parks the instance, with the event.
func When[S, E any](t Topic[E], to string, apply func(s *S, e *E) error) On[S] {
	return On[S]{kind: KindEvent, source: t.source, to: []string{to}, apply: applying(to, apply)}
}

// Choose is When for several states, one of which choose names.
func Choose[S, E any](t Topic[E], choose func(s *S, e *E) (string, error), to ...string) On[S] {
	return On[S]{kind: KindEvent, source: t.source, to: to, apply: choosing(choose)}
}

// Answered goes to a state when the call that the state makes is answered with 2xx. A is what the answer's JSON is decoded into.
func Answered[S, A any](to string, apply func(s *S, answer *A) error) On[S] {
	return On[S]{kind: KindAnswer, to: []string{to}, apply: applying(to, apply)}
}

// ChooseAnswered is Answered for several states, one of which choose names.
func ChooseAnswered[S, A any](choose func(s *S, answer *A) (string, error), to ...string) On[S] {
	return On[S]{kind: KindAnswer, to: to, apply: choosing(choose)}
}

// A Refusal is the answer of a service that does not do what it is asked.
type Refusal struct { //nolint:errname // it is an answer, and an error only on its way here
	Status int            `json:"status"`         // HTTP
	Code   string         `json:"code,omitzero"`  // the stable code of a problem, where there is one
	Detail string         `json:"detail"`         // for people
	Body   jsontext.Value `json:"body,omitempty"` // where it is JSON
}

// Refused goes to a state when the call that the state makes is answered with 4xx, save 401, 403, 405, 408, 421, 425 and 429, which are tried again.
// Without it the instance parks.
func Refused[S any](to string, apply func(s *S, r *Refusal) error) On[S] {
	return On[S]{kind: KindRefusal, to: []string{to}, apply: applying(to, apply)}
}

// RefusedIf is Refused for the refusals that is reports. With any other the instance parks, and a retry makes the call again. What has steps undone asks for
// what the service says of the matter itself: a 404 may mean as well that nothing is at the path.
func RefusedIf[S any](is func(r *Refusal) bool, to string, apply func(s *S, r *Refusal) error) On[S] {
	on := Refused(to, apply)
	on.takes = func(body jsontext.Value) bool {
		var r Refusal
		return decode(body, &r) == nil && is(&r)
	}
	return on
}

// Failed goes to a state when the call that the state makes has failed Attempts times. Without it the instance parks.
func Failed[S any](to string, apply func(s *S, f *Failure) error) On[S] {
	return On[S]{kind: KindFailure, to: []string{to}, apply: applying(to, apply)}
}

// A Failure is why an attempt did not succeed.
type Failure struct {
	Reason string `json:"reason"`
}

// After goes to a state when so long has passed since the state was entered, also when no process ran then. A call that is under way is given up: it may
// have been done or not.
func After[S any](d time.Duration, to string, apply func(s *S) error) On[S] {
	on := On[S]{kind: KindTimeout, after: d, to: []string{to}, apply: func(*S, jsontext.Value) (string, error) { return to, nil }}
	if apply != nil {
		on.apply = func(s *S, _ jsontext.Value) (string, error) { return to, apply(s) }
	}
	return on
}

func applying[S, E any](to string, apply func(*S, *E) error) func(*S, jsontext.Value) (string, error) {
	if apply == nil {
		return func(*S, jsontext.Value) (string, error) { return to, nil }
	}
	return choosing(func(s *S, e *E) (string, error) { return to, apply(s, e) })
}

func choosing[S, E any](choose func(*S, *E) (string, error)) func(*S, jsontext.Value) (string, error) {
	return func(s *S, body jsontext.Value) (string, error) {
		e := new(E)
		if err := decode(body, e); err != nil {
			return "", err
		}
		return choose(s, e)
	}
}

// A Command is what a state issues: an event, or a call. The zero value is none.
type Command[S any] struct {
	topic          string
	target, method string
	until          source
	event          func(s *S) bus.Event
	body           func(s *S) any
}

// Publish is a command that is an event. It has no id; it gets one that is the same each time it is published.
func Publish[S any](topic string, event func(s *S) bus.Event) Command[S] {
	return Command[S]{topic: topic, event: event}
}

// Call is a command that posts JSON to a method of a service over the mesh, as mesh.Invoke does, with an idempotency key that is the same
// each time.
func Call[S any](target, method string, body func(s *S) any) Command[S] {
	return Command[S]{target: target, method: method, body: body}
}

// Until says of an undo that is an event that it has succeeded when an event of a topic comes, and not when the broker has it.
func (c Command[S]) Until(t Source) Command[S] {
	c.until = t.from()
	return c
}

func (c Command[S]) none() bool { return c.topic == "" && c.target == "" }
