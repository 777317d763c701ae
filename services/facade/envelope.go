package facade

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// What an event of a Dapr app has on the bus beside its data.
const (
	// headerAttributes are the attributes of the CloudEvent, all but its data, as a JSON object.
	headerAttributes = "cloudevent"
	// headerForm says how the data stands in the envelope: json, text or base64.
	headerForm = "cloudevent-data"
	// headerStamped is how many bytes the bus has put after the first brace of the data: an eventId and a timestamp, which every event has there.
	headerStamped = "cloudevent-stamped"
)

// The forms of an event's data.
const (
	formJSON   = "json"
	formText   = "text"
	formBase64 = "base64"
)

// An event is a CloudEvent in two parts.
type event struct {
	attributes map[string]jsontext.Value // without data; nil: raw, there is no envelope
	form       string
	data       []byte
}

// newEvent wraps what an app publishes as Dapr does.
func newEvent(source, pubsub, topic, contentType, traceParent, traceState string, data []byte, m map[string]string) (event, error) {
	media, _, _ := mime.ParseMediaType(contentType)
	if media == "application/cloudevents+json" {
		return readEvent(data, pubsub, topic, traceParent, traceState)
	}
	contentType = cmp.Or(contentType, "text/plain")
	trace := cmp.Or(m["cloudevent.traceparent"], m["cloudevent.traceid"], traceParent)
	e := event{data: data, attributes: map[string]jsontext.Value{}}
	for name, value := range map[string]string{
		"id": cmp.Or(m["cloudevent.id"], uuid.NewString()), "specversion": "1.0", "datacontenttype": contentType,
		"source": cmp.Or(m["cloudevent.source"], source), "type": cmp.Or(m["cloudevent.type"], "com.dapr.event.sent"),
		"topic": topic, "pubsubname": pubsub, "traceid": trace, "traceparent": trace,
		"tracestate": cmp.Or(m["cloudevent.tracestate"], traceState), "time": time.Now().UTC().Format(time.RFC3339),
	} {
		e.attributes[name] = quote(value)
	}
	switch {
	case isJSON(contentType) && jsontext.Value(data).IsValid():
		e.form = formJSON
	case isBinary(contentType) || !utf8.Valid(data):
		e.form = formBase64
	default:
		e.form = formText
	}
	return e, nil
}

// readEvent takes a CloudEvent apart that an app has made itself, and adds what Dapr adds to it.
func readEvent(content []byte, pubsub, topic, traceParent, traceState string) (event, error) {
	var e event
	if err := json.Unmarshal(content, &e.attributes); err != nil || e.attributes == nil {
		return e, malformed("the body is to be a CloudEvent, a JSON object, as its content type says")
	}
	defaults := map[string]string{
		"id": uuid.NewString(), "specversion": "1.0", "source": "Dapr", "type": "com.dapr.event.sent", "traceid": traceParent,
		"traceparent": traceParent, "tracestate": traceState, "time": time.Now().UTC().Format(time.RFC3339),
	}
	for name, value := range defaults {
		if _, has := e.attributes[name]; !has {
			e.attributes[name] = quote(value)
		}
	}
	e.attributes["topic"], e.attributes["pubsubname"] = quote(topic), quote(pubsub)
	e.form, e.data = formJSON, jsontext.Value("null")
	if coded, has := e.attributes["data_base64"]; has {
		var text string
		decoded, err := []byte(nil), json.Unmarshal(coded, &text)
		if err == nil {
			decoded, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil {
			return e, malformed("data_base64 is not a string in base64")
		}
		e.form, e.data = formBase64, decoded
	} else if data, has := e.attributes["data"]; has {
		e.data = data
		if text := ""; !isJSON(e.text("datacontenttype")) && json.Unmarshal(data, &text) == nil {
			e.form, e.data = formText, []byte(text)
		}
	}
	delete(e.attributes, "data")
	delete(e.attributes, "data_base64")
	return e, nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

func isBinary(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == opaque
}

func quote(s string) jsontext.Value {
	quoted, _ := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD")) // valid UTF-8 can be quoted
	return quoted
}

// text is an attribute that is a string.
func (e event) text(name string) string {
	var s string
	_ = json.Unmarshal(e.attributes[name], &s) // one that is absent, or no string, is empty
	return s
}

// headers are what the event has on the bus beside its data.
func (e event) headers() map[string]string {
	if e.attributes == nil {
		return map[string]string{}
	}
	return map[string]string{headerAttributes: string(object(e.attributes)), headerForm: e.form}
}

// object writes members in the order of their names.
func object(members map[string]jsontext.Value) []byte {
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for i, name := range names {
		b.WriteByte("{,"[min(i, 1)])
		b.Write(quote(name))
		b.WriteByte(':')
		b.Write(members[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}

// eventOf is what was received, as it was published: without what the bus has put in. A native event gets attributes from its properties.
func eventOf(r *bus.Received, pubsub, topic string) event {
	e := event{data: unstamped(r), form: r.Headers[headerForm]}
	if json.Unmarshal([]byte(r.Headers[headerAttributes]), &e.attributes) == nil && e.attributes != nil {
		return e
	}
	trace := r.Headers[bus.HeaderTraceParent]
	e.attributes = map[string]jsontext.Value{
		"id": quote(r.MessageID), "specversion": quote("1.0"), "datacontenttype": quote(cmp.Or(r.ContentType, "application/json")),
		"source": quote(cmp.Or(r.Headers[bus.HeaderSourceService], "bannou")), "type": quote(cmp.Or(r.Type, "com.dapr.event.sent")),
		"topic": quote(topic), "pubsubname": quote(pubsub), "traceid": quote(trace), "traceparent": quote(trace),
		"tracestate": quote(r.Headers[bus.HeaderTraceState]), "time": quote(r.Timestamp.UTC().Format(time.RFC3339)),
	}
	switch {
	case isJSON(r.ContentType) && jsontext.Value(e.data).IsValid():
		e.form = formJSON
	case utf8.Valid(e.data):
		e.form = formText
	default:
		e.form = formBase64
	}
	return e
}

// unstamped is the body as it was published.
func unstamped(r *bus.Received) []byte {
	n, err := strconv.Atoi(r.Headers[headerStamped])
	begin := bytes.IndexByte(r.Body, '{') + 1
	if err != nil || n <= 0 || begin == 0 || begin+n > len(r.Body) {
		return r.Body
	}
	return slices.Concat(r.Body[:begin], r.Body[begin+n:])
}

// envelope is the CloudEvent as one JSON object.
func (e event) envelope() []byte {
	name, value := "data", jsontext.Value(e.data)
	switch e.form {
	case formText:
		value = quote(string(e.data))
	case formBase64:
		name, value = "data_base64", quote(base64.StdEncoding.EncodeToString(e.data))
	}
	whole := object(e.attributes)
	whole = append(whole[:len(whole)-1], `,"`+name+`":`...)
	return append(append(whole, value...), '}')
}

// rawEnvelope is what a subscriber gets that asked for raw payloads: what was sent, in base64.
func rawEnvelope(payload []byte, id, pubsub, topic string) []byte {
	return object(map[string]jsontext.Value{
		"id": quote(id), "specversion": quote("1.0"), "datacontenttype": quote("application/octet-stream"), "source": quote("Dapr"),
		"type": quote("com.dapr.event.sent"), "topic": quote(topic), "pubsubname": quote(pubsub),
		"data_base64": quote(base64.StdEncoding.EncodeToString(payload)),
	})
}
