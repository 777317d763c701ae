package sagas

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A Status says how far an instance is.
type Status string

// The statuses.
const (
	Running      Status = "running"
	Undoing      Status = "compensating" // steps are being undone
	Parked       Status = "parked"       // it waits for a person
	Completed    Status = "completed"
	Compensated  Status = "compensated" // all steps that were begun are undone
	Cancelled    Status = "cancelled"   // a person ended it
	statusAbsent Status = ""
)

// Ended reports whether nothing more happens by itself or on request.
func (s Status) Ended() bool { return s == Completed || s == Compensated || s == Cancelled }

// An Instance is one saga as it is after one of its events, each of which has all of it.
type Instance struct {
	Saga       string         `json:"saga"`
	Key        string         `json:"key"`
	Definition int            `json:"definition"` // the version of its definition
	Status     Status         `json:"status"`
	State      string         `json:"state,omitzero"` // empty: it waits for its start
	Data       jsontext.Value `json:"data,omitempty"`

	Started     time.Time `json:"started"`
	Changed     time.Time `json:"changed"`
	Correlation string    `json:"correlation,omitzero"` // the correlation id of all it sends

	Entry  int        `json:"entry,omitzero"`  // how many states were entered
	Due    *time.Time `json:"due,omitempty"`   // when the state has lasted too long
	Owed   []Step     `json:"owed,omitempty"`  // what compensation undoes, from the end
	Work   *Work      `json:"work,omitempty"`  // what it waits for besides messages
	Kept   []Message  `json:"kept,omitempty"`  // for a state that takes them
	Parked *Parking   `json:"parked,omitzero"` // why it is parked
	Reason string     `json:"reason,omitzero"` // why it was compensated or cancelled

	Unissued bool `json:"unissued,omitzero"` // the command of the state could not be made, or not be sent

	Version  int64 `json:"-"` // of its stream; 0: it does not exist
	Position int64 `json:"-"` // of its last event in the log
}

// A Step is a state whose command was issued.
type Step struct {
	State string `json:"state"`
	Entry int    `json:"entry"` // Instance.Entry then: a state may be entered again
}

// Parking is why an instance waits for a person.
type Parking struct {
	Reason string    `json:"reason"`
	From   Status    `json:"from"` // what it was before
	Since  time.Time `json:"since"`
}

// Work is a call to be made, or an undo to be confirmed.
type Work struct {
	Step
	ID      string         `json:"id"` // of the command, on each attempt
	Undo    bool           `json:"undo,omitzero"`
	Target  string         `json:"target,omitzero"` // of a call
	Method  string         `json:"method,omitzero"`
	Body    jsontext.Value `json:"body,omitempty"`
	Until   string         `json:"until,omitzero"` // the topic that confirms an event; empty: that the broker has it does
	Attempt int            `json:"attempt"`        // from 1
	Due     *time.Time     `json:"due,omitempty"`  // of the call, or of the next attempt
	Failure string         `json:"failure,omitzero"`
}

// A Kind says what an instance is given.
type Kind string

// The kinds of messages.
const (
	KindEvent   Kind = "event"   // of a topic of the bus
	KindAnswer  Kind = "answer"  // of a call
	KindRefusal Kind = "refusal" // of a call, a Refusal
	KindFailure Kind = "failure" // of an attempt, a Failure
	KindSent    Kind = "sent"    // the broker has the event
	KindTimeout Kind = "timeout" // the state has lasted too long
	KindRepeat  Kind = "repeat"  // an undo was not confirmed in time

	KindRetry      Kind = "retry" // requests of people, each a Request
	KindCompensate Kind = "compensate"
	KindCancel     Kind = "cancel"

	kindKept Kind = "kept" // no message: the instance was written anew at the end of the log
	kindPark Kind = "park" // something could not be kept or sent, a Failure
)

// A Message is what an instance is given.
type Message struct {
	ID    string         `json:"id"`
	Kind  Kind           `json:"kind"`
	Topic string         `json:"topic,omitzero"` // of an event
	Work  string         `json:"work,omitzero"`  // of an answer, refusal, failure, sent and repeat: the id of the command; of park: of one that was not sent
	Entry int            `json:"entry,omitzero"` // of a timeout: Instance.Entry
	Body  jsontext.Value `json:"body,omitempty"`

	Correlation string `json:"-"`
}

// A Request is what a person asks for.
type Request struct {
	Actor string `json:"actor,omitzero"`
	Note  string `json:"note,omitzero"`
}

// Outgoing is an event to be published.
type Outgoing struct {
	ID     string         `json:"id"`
	Topic  string         `json:"topic"`
	Type   string         `json:"type"`
	Body   jsontext.Value `json:"body"`
	Undoes string         `json:"undoes,omitzero"` // the id of the command that it undoes
	Tell   bool           `json:"tell,omitzero"`   // the instance waits for it to be sent
}

// A Turn is what follows from a message.
type Turn struct {
	Instance Instance   // after it
	Publish  []Outgoing // because of it
	Policy   Policy     // empty: a state, or what the instance waits for, took it; else what becomes of it
	Reason   string     // why the policy, for people
	Nothing  bool       // nothing is to be entered: the message is to be forgotten, or to be a dead letter
}

// record is the data of an event.
type record struct {
	Message  Message    `json:"message"`
	Instance Instance   `json:"instance"`
	Publish  []Outgoing `json:"publish,omitempty"`
}
