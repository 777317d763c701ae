package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const contentTypeJSON = "application/json"

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == contentTypeJSON || strings.HasSuffix(media, "+json"))
}

// members are what an event's body says of itself; empty where it says nothing.
type members struct {
	eventID   string
	timestamp time.Time
	none      bool // the object has no members at all
}

// stampBody gives a JSON object an eventId and a timestamp where it has none, and returns those in force. All else
// stays as it was, to the byte.
func stampBody(body []byte, id string, at time.Time) ([]byte, string, time.Time, error) {
	m, err := readMembers(body)
	if err != nil {
		return nil, "", time.Time{}, invalidBody(err)
	}
	var add bytes.Buffer
	if m.eventID == "" {
		m.eventID = id
		quoted, err := jsontext.AppendQuote(nil, id)
		if err != nil {
			return nil, "", time.Time{}, fmt.Errorf("%w: the message id: %w", ErrInvalid, err)
		}
		add.WriteString(`"eventId":`)
		add.Write(quoted)
	}
	if m.timestamp.IsZero() {
		m.timestamp = at
		if add.Len() > 0 {
			add.WriteByte(',')
		}
		add.WriteString(`"timestamp":"` + at.UTC().Format(time.RFC3339Nano) + `"`)
	}
	if add.Len() == 0 {
		return body, m.eventID, m.timestamp, nil
	}
	if !m.none {
		add.WriteByte(',')
	}
	after := bytes.IndexByte(body, '{') + 1
	stamped := make([]byte, 0, len(body)+add.Len())
	stamped = append(stamped, body[:after]...)
	stamped = append(stamped, add.Bytes()...)
	stamped = append(stamped, body[after:]...)
	return stamped, m.eventID, m.timestamp, nil
}

// memberError is what is wrong with a member of a body that is a JSON object otherwise.
type memberError struct{ name, fault string }

func (e *memberError) Error() string { return "the body's " + e.name + " " + e.fault }

// invalidBody tells a member that is not what it has to be from a body that is no JSON object at all.
func invalidBody(err error) error {
	if m := (*memberError)(nil); errors.As(err, &m) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return fmt.Errorf("%w: the body must be a JSON object (name another content type for anything else): %w", ErrInvalid, err)
}

// readMembers checks that body is one JSON object and reads its eventId and timestamp.
func readMembers(body []byte) (members, error) {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if kind := d.PeekKind(); kind != '{' {
		if _, err := d.ReadToken(); err != nil {
			return members{}, noEOF(err)
		}
		return members{}, fmt.Errorf("it begins with %s", kind)
	}
	if _, err := d.ReadToken(); err != nil {
		return members{}, noEOF(err)
	}
	m := members{none: true}
	for d.PeekKind() == '"' {
		m.none = false
		name, err := d.ReadToken()
		if err != nil {
			return members{}, noEOF(err)
		}
		if err := m.read(name.String(), d); err != nil {
			return members{}, noEOF(err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return members{}, noEOF(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return members{}, errors.New("something follows the object")
	}
	return m, nil
}

func (m *members) read(name string, d *jsontext.Decoder) error {
	switch name {
	case "eventId":
		s, err := readString(name, d)
		m.eventID = s
		return err
	case "timestamp":
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		// As a subscriber will read it: time.Parse would take forms that are not RFC 3339.
		if err := json.Unmarshal(value, &m.timestamp); err != nil || m.timestamp.IsZero() {
			return &memberError{name, "is " + cut(string(value), 64) + ", and has to be a time of RFC 3339, such as \"2025-01-02T03:04:05Z\""}
		}
		return nil
	default:
		return d.SkipValue()
	}
}

func readString(name string, d *jsontext.Decoder) (string, error) {
	value, err := d.ReadValue()
	if err != nil {
		return "", err
	}
	var s string
	if json.Unmarshal(value, &s) != nil || s == "" {
		return "", &memberError{name, "is " + cut(string(value), 64) + ", and has to be a string with something in it"}
	}
	return s, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
