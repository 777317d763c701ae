package eventstore

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Limits that hold on every engine.
const (
	MaxCategoryBytes = 64
	MaxIDBytes       = state.MaxKeyBytes // of a stream's id, and of each member of Metadata
	MaxTypeBytes     = 128
	MaxDataBytes     = 1 << 20 // of one event's JSON
	MaxAppendEvents  = 1000    // of one append
)

// A StreamID names a stream.
type StreamID struct {
	Category string // what kind of thing it is: lower-case letters, digits, dashes and dots, 1 to 64 bytes
	ID       string // which one: 1 to 255 bytes of UTF-8
}

// String is "category/id", for people.
func (s StreamID) String() string { return s.Category + "/" + s.ID }

// An Event is what is appended.
type Event struct {
	// ID is a UUID that no other event has. Empty: the store makes one. Who may have to repeat an append chooses it.
	ID string
	// Type says what has happened, as "opened" does. 1 to 128 bytes.
	Type string
	// Schema is the version of the form of Data. 0 is 1.
	Schema int
	// Data is JSON, and comes back byte for byte.
	Data jsontext.Value
	// Metadata tells where it comes from.
	Metadata Metadata
	// Personal says what of Data is about a person. It is for appending: an event that was read has none.
	Personal Personal
}

// Metadata tells where an event comes from. Each member may be empty and has at most 255 bytes.
type Metadata struct {
	CausationID   string `json:"causationId,omitzero"`   // the message or event that led to it
	CorrelationID string `json:"correlationId,omitzero"` // shared by all that one request led to
	Trace         string `json:"trace,omitzero"`         // a W3C traceparent
	Actor         string `json:"actor,omitzero"`         // who asked for it

	// Key is between the store and its engine: the id of the key that personal members are encrypted with. It is empty in what callers see and give.
	Key string `json:"key,omitzero"`
}

// A Recorded event is one that was appended.
type Recorded struct {
	Event
	Stream     StreamID
	Version    int64     // its place in the stream, from 1
	Position   int64     // its place in the log, from 1
	RecordedAt time.Time // by the engine's clock, to the microsecond

	// Erased are the personal members whose subject was erased, by JSON pointers: they are null in Data.
	Erased []jsontext.Pointer

	openedWith string // the id of the key that personal members were decrypted with
}

func (s StreamID) check() error {
	if err := checkCategory(s.Category); err != nil {
		return err
	}
	if s.ID == "" || len(s.ID) > MaxIDBytes || !utf8.ValidString(s.ID) {
		return fmt.Errorf("%w: the id of a stream is 1 to %d bytes of UTF-8", state.ErrInvalid, MaxIDBytes)
	}
	return nil
}

func checkCategory(category string) error {
	ok := category != "" && len(category) <= MaxCategoryBytes
	for i := range len(category) {
		c := category[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.')
	}
	if !ok {
		return fmt.Errorf("%w: category %q: use 1 to %d lower-case letters, digits, dashes and dots", state.ErrInvalid, category, MaxCategoryBytes)
	}
	return nil
}

// complete checks an event, fills in what was left empty, and makes its memory its own.
func (e *Event) complete(stream StreamID) error {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("making the id of an event: %w", err)
		}
		e.ID = id.String()
	} else {
		id, err := uuid.Parse(e.ID)
		if err != nil {
			return fmt.Errorf("%w: the id of an event is a UUID, and %q is none", state.ErrInvalid, e.ID)
		}
		e.ID = id.String()
	}
	if e.Schema == 0 {
		e.Schema = 1
	}
	switch {
	case e.Type == "" || len(e.Type) > MaxTypeBytes || !utf8.ValidString(e.Type):
		return fmt.Errorf("%w: the type of an event is 1 to %d bytes of UTF-8", state.ErrInvalid, MaxTypeBytes)
	case e.Schema < 1 || e.Schema > 1<<15:
		return fmt.Errorf("%w: event %q: its schema is a number from 1 to %d", state.ErrInvalid, e.Type, 1<<15)
	case len(e.Data) > MaxDataBytes:
		return fmt.Errorf("%w: event %q has %d bytes, at most %d may be", state.ErrTooLarge, e.Type, len(e.Data), MaxDataBytes)
	case !e.Data.IsValid():
		return fmt.Errorf("%w: event %q: its data is not JSON", state.ErrInvalid, e.Type)
	}
	if e.Metadata.Key != "" {
		return fmt.Errorf("%w: event %q: the key in its metadata is the store's to set", state.ErrInvalid, e.Type)
	}
	if len(e.Personal.Members) > 0 {
		if e.Personal.Subject == "" {
			e.Personal.Subject = stream.String()
		}
		if err := checkSubject(e.Personal.Subject); err != nil {
			return fmt.Errorf("event %q: %w", e.Type, err)
		}
		for _, at := range e.Personal.Members {
			if !at.IsValid() || at == "" {
				return fmt.Errorf("%w: event %q: %q is no JSON pointer to a member, such as /name", state.ErrInvalid, e.Type, at)
			}
		}
	}
	for _, m := range []string{e.Metadata.CausationID, e.Metadata.CorrelationID, e.Metadata.Trace, e.Metadata.Actor} {
		if len(m) > MaxIDBytes || !utf8.ValidString(m) {
			return fmt.Errorf("%w: event %q: a member of its metadata is at most %d bytes of UTF-8", state.ErrInvalid, e.Type, MaxIDBytes)
		}
	}
	e.Data = slices.Clone(e.Data)
	return nil
}
