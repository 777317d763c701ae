package daprtopics

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

const contentTypeJSON = "application/json"

// wrap is a message in an envelope. Its properties stay beside it, for native readers: Dapr looks at none.
func wrap(m *bus.Message, t Topic) *bus.Message {
	wrapped := *m
	wrapped.Headers = maps.Clone(m.Headers)
	if wrapped.Headers == nil {
		wrapped.Headers = map[string]string{}
	}
	wrapped.Headers[bus.HeaderEnvelope] = cloudevents.ContentType
	attributes, form := map[string]jsontext.Value{}, m.Headers[cloudevents.HeaderForm]
	data := m.Body
	if json.Unmarshal([]byte(m.Headers[cloudevents.HeaderAttributes]), &attributes) == nil && len(attributes) > 0 {
		data = cloudevents.Unstamped(m.Headers, m.Body)
	} else {
		trace := m.Headers[bus.HeaderTraceParent]
		attributes = map[string]jsontext.Value{
			"id": cloudevents.Quote(m.ID), "specversion": cloudevents.Quote("1.0"), "source": cloudevents.Quote(cmp.Or(m.Headers[bus.HeaderSourceService], "bannou")),
			"type": cloudevents.Quote(cmp.Or(m.Type, cloudevents.TypeOfDapr)), "datacontenttype": cloudevents.Quote(cmp.Or(m.ContentType, contentTypeJSON)),
			"time": cloudevents.Quote(m.Timestamp.UTC().Format(time.RFC3339Nano)), "traceid": cloudevents.Quote(trace), "traceparent": cloudevents.Quote(trace),
			"tracestate": cloudevents.Quote(m.Headers[bus.HeaderTraceState]),
		}
		form = cloudevents.FormOf(cmp.Or(m.ContentType, contentTypeJSON), data)
	}
	attributes["topic"], attributes["pubsubname"] = cloudevents.Quote(t.Name), cloudevents.Quote(t.PubSub)
	for _, name := range []string{cloudevents.HeaderAttributes, cloudevents.HeaderForm, cloudevents.HeaderStamped} {
		delete(wrapped.Headers, name) // the envelope has it
	}
	wrapped.Body = cloudevents.Join(attributes, form, data)
	wrapped.ContentType = cloudevents.ContentType
	return &wrapped
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
	if flat.Type = text("type"); flat.Type == cloudevents.TypeOfDapr {
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
	if value := cloudevents.Object(attributes); len(value) < bus.LetterHeaderRoom { // what is larger no broker would take as a header
		flat.Headers[cloudevents.HeaderAttributes], flat.Headers[cloudevents.HeaderForm] = string(value), form
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
		return cloudevents.FormBase64, decoded, nil
	}
	value, has := attributes["data"]
	if !has {
		return cloudevents.FormJSON, []byte("null"), nil
	}
	var s string
	if media := text("datacontenttype"); media != "" && !cloudevents.IsJSON(media) && json.Unmarshal(value, &s) == nil {
		return cloudevents.FormText, []byte(s), nil
	}
	return cloudevents.FormJSON, value, nil
}

// stamp gives a JSON object the eventId and the timestamp that each event of the bus has, unless it has its own: an event that a native
// program wrapped has, and keeps its id.
func stamp(m *bus.Message, form string, data []byte) []byte {
	begin := bytes.IndexByte(data, '{') + 1
	if form != cloudevents.FormJSON || begin == 0 || jsontext.Value(data).Kind() != '{' {
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
		added = `"eventId":` + string(cloudevents.Quote(m.ID))
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
	m.Headers[cloudevents.HeaderStamped] = strconv.Itoa(len(added))
	return slices.Concat(data[:begin], []byte(added), data[begin:])
}
