package daprtopics

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/internal/cloudevents"
)

// What an event has beside its data where it was, or may be, in an envelope. The facade of Dapr's API reads and writes the same headers, so
// that an app behind it gets the envelope as its publisher made it, and the data to the byte.
const (
	// HeaderAttributes are the attributes of the CloudEvent, all but its data, as a JSON object.
	HeaderAttributes = "cloudevent"
	// HeaderForm says how the data stands in the envelope: json, text or base64.
	HeaderForm = "cloudevent-data"
	// HeaderStamped is how many bytes the bus has put after the first brace of the data: an eventId and a timestamp.
	HeaderStamped = "cloudevent-stamped"
)

// The values of HeaderForm.
const (
	FormJSON   = "json"
	FormText   = "text"
	FormBase64 = "base64"
)

const (
	contentTypeEnvelope = "application/cloudevents+json"
	contentTypeJSON     = "application/json"
	typeOfDapr          = "com.dapr.event.sent" // the type of events to which their publisher gave none
)

// wrap is a message in an envelope. Its properties stay beside it, for native readers: Dapr looks at none.
func wrap(m *bus.Message, t Topic) *bus.Message {
	wrapped := *m
	wrapped.Headers = maps.Clone(m.Headers)
	if wrapped.Headers == nil {
		wrapped.Headers = map[string]string{}
	}
	wrapped.Headers[bus.HeaderEnvelope] = contentTypeEnvelope
	attributes, form := map[string]jsontext.Value{}, m.Headers[HeaderForm]
	data := m.Body
	if json.Unmarshal([]byte(m.Headers[HeaderAttributes]), &attributes) == nil && len(attributes) > 0 {
		data = unstamped(m)
	} else {
		trace := m.Headers[bus.HeaderTraceParent]
		attributes = map[string]jsontext.Value{
			"id": quote(m.ID), "specversion": quote("1.0"), "source": quote(cmp.Or(m.Headers[bus.HeaderSourceService], "bannou")),
			"type": quote(cmp.Or(m.Type, typeOfDapr)), "datacontenttype": quote(cmp.Or(m.ContentType, contentTypeJSON)),
			"time": quote(m.Timestamp.UTC().Format(time.RFC3339Nano)), "traceid": quote(trace), "traceparent": quote(trace),
			"tracestate": quote(m.Headers[bus.HeaderTraceState]),
		}
		form = formOf(cmp.Or(m.ContentType, contentTypeJSON), data)
	}
	attributes["topic"], attributes["pubsubname"] = quote(t.Name), quote(t.PubSub)
	for _, name := range []string{HeaderAttributes, HeaderForm, HeaderStamped} {
		delete(wrapped.Headers, name) // the envelope has it
	}
	member, value := "data", jsontext.Value(data)
	switch form {
	case FormText:
		value = quote(string(data))
	case FormBase64:
		member, value = "data_base64", quote(base64.StdEncoding.EncodeToString(data))
	}
	whole := object(attributes)
	whole = append(whole[:len(whole)-1], `,"`+member+`":`...)
	wrapped.Body = append(append(whole, value...), '}')
	wrapped.ContentType = contentTypeEnvelope
	return &wrapped
}

func formOf(contentType string, data []byte) string {
	switch {
	case isJSON(contentType) && jsontext.Value(data).IsValid():
		return FormJSON
	case utf8.Valid(data) && !isBinary(contentType):
		return FormText
	default:
		return FormBase64
	}
}

// unstamped is the body as it was published.
func unstamped(m *bus.Message) []byte {
	n, err := strconv.Atoi(m.Headers[HeaderStamped])
	begin := bytes.IndexByte(m.Body, '{') + 1
	if err != nil || n <= 0 || begin == 0 || begin+n > len(m.Body) {
		return m.Body
	}
	return slices.Concat(m.Body[:begin], m.Body[begin+n:])
}

// unwrap takes an event out of its envelope: the body is the data, with an eventId and a timestamp where it is a JSON object without, and the
// attributes are headers. No number is read. What is no envelope is an error, and a message whose body is what came.
func unwrap(m *bus.Message) (*bus.Message, error) {
	flat := *m
	flat.Headers = make(map[string]string, len(m.Headers)+4)
	maps.Copy(flat.Headers, m.Headers)
	delete(flat.Headers, bus.HeaderEnvelope)
	var attributes map[string]jsontext.Value
	if err := json.Unmarshal(m.Body, &attributes, jsontext.AllowDuplicateNames(true)); err != nil {
		return &flat, fmt.Errorf("the body is no JSON object: %w", err)
	}
	text := func(name string) (s string) {
		_ = json.Unmarshal(attributes[name], &s) // one that is absent, or no string, is empty
		return s
	}
	id, source := text("id"), text("source")
	if text("specversion") == "" || id == "" {
		return &flat, errors.New("the body has no specversion and id, and is no CloudEvent")
	}
	form, data, err := dataOf(attributes, text)
	if err != nil {
		return &flat, err
	}
	flat.ContentType, flat.ID = cmp.Or(text("datacontenttype"), contentTypeJSON), cloudevents.Identity(source, id)
	if flat.Type = text("type"); flat.Type == typeOfDapr {
		flat.Type = m.Type
	}
	if at, err := time.Parse(time.RFC3339Nano, text("time")); err == nil {
		flat.Timestamp = at
	} else if flat.Timestamp.IsZero() { // CloudEvents can do without
		flat.Timestamp = time.Now().UTC()
	}
	flat.Headers[bus.HeaderSourceService] = cmp.Or(flat.Headers[bus.HeaderSourceService], source)
	for header, attribute := range map[string]string{bus.HeaderTraceParent: "traceparent", bus.HeaderTraceState: "tracestate"} {
		if value := text(attribute); flat.Headers[header] == "" && value != "" {
			flat.Headers[header] = value
		}
	}
	delete(attributes, "data")
	delete(attributes, "data_base64")
	if value := object(attributes); len(value) < bus.LetterHeaderRoom { // what is larger no broker would take as a header
		flat.Headers[HeaderAttributes], flat.Headers[HeaderForm] = string(value), form
	}
	flat.Body = stamp(&flat, form, data)
	return &flat, nil
}

// dataOf is the data of an envelope, and how it stands there.
func dataOf(attributes map[string]jsontext.Value, text func(name string) string) (form string, data []byte, err error) {
	if _, has := attributes["data_base64"]; has {
		decoded, err := base64.StdEncoding.DecodeString(text("data_base64"))
		if err != nil {
			return "", nil, fmt.Errorf("data_base64 is not base64: %w", err)
		}
		return FormBase64, decoded, nil
	}
	value, has := attributes["data"]
	if !has {
		return FormJSON, []byte("null"), nil
	}
	var s string
	if media := text("datacontenttype"); media != "" && !isJSON(media) && json.Unmarshal(value, &s) == nil {
		return FormText, []byte(s), nil
	}
	return FormJSON, value, nil
}

// stamp gives a JSON object the eventId and the timestamp that each event of the bus has, unless it has its own: an event that a native
// program wrapped has, and keeps its id.
func stamp(m *bus.Message, form string, data []byte) []byte {
	begin := bytes.IndexByte(data, '{') + 1
	if form != FormJSON || begin == 0 || jsontext.Value(data).Kind() != '{' {
		return data
	}
	var own struct {
		EventID   jsontext.Value `json:"eventId"`
		Timestamp jsontext.Value `json:"timestamp"`
	}
	if err := json.Unmarshal(data, &own, jsontext.AllowDuplicateNames(true)); err != nil {
		return data // whoever decodes it says so
	}
	added, id := "", ""
	if own.EventID == nil { // one that is there, and null or empty, stays: a name that is there twice is no JSON to most
		added = `"eventId":` + string(quote(m.ID))
	} else if json.Unmarshal(own.EventID, &id) == nil && id != "" {
		m.ID = id
	}
	if own.Timestamp == nil {
		added += strings.Repeat(",", min(len(added), 1)) + `"timestamp":"` + m.Timestamp.UTC().Format(time.RFC3339Nano) + `"`
	}
	if added == "" {
		return data
	}
	if rest := bytes.TrimLeft(data[begin:], " \t\r\n"); len(rest) > 0 && rest[0] != '}' {
		added += ","
	}
	m.Headers[HeaderStamped] = strconv.Itoa(len(added))
	return slices.Concat(data[:begin], []byte(added), data[begin:])
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == contentTypeJSON || strings.HasSuffix(media, "+json"))
}

func isBinary(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/octet-stream"
}

func quote(s string) jsontext.Value {
	quoted, _ := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD")) // valid UTF-8 can be quoted
	return quoted
}

// object writes members in the order of their names.
func object(members map[string]jsontext.Value) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quote(name))
		b.WriteByte(':')
		b.Write(members[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}
