package facade

import (
	"cmp"
	"encoding/base64"
	"mime"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
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
	if media == cloudevents.ContentType {
		return readEvent(data, pubsub, topic, traceParent, traceState)
	}
	contentType = cmp.Or(contentType, "text/plain")
	trace := cmp.Or(m["cloudevent.traceparent"], m["cloudevent.traceid"], traceParent)
	e := event{data: data, attributes: map[string]jsontext.Value{}}
	for name, value := range map[string]string{
		"id": cmp.Or(m["cloudevent.id"], uuid.NewString()), "specversion": "1.0", "datacontenttype": contentType,
		"source": cmp.Or(m["cloudevent.source"], source), "type": cmp.Or(m["cloudevent.type"], cloudevents.TypeOfDapr),
		"topic": topic, "pubsubname": pubsub, "traceid": trace, "traceparent": trace,
		"tracestate": cmp.Or(m["cloudevent.tracestate"], traceState), "time": time.Now().UTC().Format(time.RFC3339),
	} {
		e.attributes[name] = cloudevents.Quote(value)
	}
	e.form = cloudevents.FormOf(contentType, data)
	return e, nil
}

// readEvent takes a CloudEvent apart that an app has made itself, and adds what Dapr adds to it.
func readEvent(content []byte, pubsub, topic, traceParent, traceState string) (event, error) {
	var e event
	if err := json.Unmarshal(content, &e.attributes); err != nil || e.attributes == nil {
		return e, malformed("the body is to be a CloudEvent, a JSON object, as its content type says")
	}
	defaults := map[string]string{
		"id": uuid.NewString(), "specversion": "1.0", "source": "Dapr", "type": cloudevents.TypeOfDapr, "traceid": traceParent,
		"traceparent": traceParent, "tracestate": traceState, "time": time.Now().UTC().Format(time.RFC3339),
	}
	for name, value := range defaults {
		if _, has := e.attributes[name]; !has {
			e.attributes[name] = cloudevents.Quote(value)
		}
	}
	e.attributes["topic"], e.attributes["pubsubname"] = cloudevents.Quote(topic), cloudevents.Quote(pubsub)
	e.form, e.data = cloudevents.FormJSON, jsontext.Value("null")
	if coded, has := e.attributes["data_base64"]; has {
		var text string
		decoded, err := []byte(nil), json.Unmarshal(coded, &text)
		if err == nil {
			decoded, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil {
			return e, malformed("data_base64 is not a string in base64")
		}
		e.form, e.data = cloudevents.FormBase64, decoded
	} else if data, has := e.attributes["data"]; has {
		e.data = data
		if text := ""; !cloudevents.IsJSON(e.text("datacontenttype")) && json.Unmarshal(data, &text) == nil {
			e.form, e.data = cloudevents.FormText, []byte(text)
		}
	}
	delete(e.attributes, "data")
	delete(e.attributes, "data_base64")
	return e, nil
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
	return map[string]string{cloudevents.HeaderAttributes: string(cloudevents.Object(e.attributes)), cloudevents.HeaderForm: e.form}
}

// eventOf is what was received, as it was published: without what the bus has put in. A native event gets attributes from its properties.
func eventOf(r *bus.Received, pubsub, topic string) event {
	e := event{data: cloudevents.Unstamped(r.Headers, r.Body), form: r.Headers[cloudevents.HeaderForm]}
	if json.Unmarshal([]byte(r.Headers[cloudevents.HeaderAttributes]), &e.attributes) == nil && e.attributes != nil {
		return e
	}
	trace := r.Headers[bus.HeaderTraceParent]
	e.attributes = map[string]jsontext.Value{
		"id": cloudevents.Quote(r.MessageID), "specversion": cloudevents.Quote("1.0"), "datacontenttype": cloudevents.Quote(cmp.Or(r.ContentType, "application/json")),
		"source": cloudevents.Quote(cmp.Or(r.Headers[bus.HeaderSourceService], "bannou")), "type": cloudevents.Quote(cmp.Or(r.Type, cloudevents.TypeOfDapr)),
		"topic": cloudevents.Quote(topic), "pubsubname": cloudevents.Quote(pubsub), "traceid": cloudevents.Quote(trace), "traceparent": cloudevents.Quote(trace),
		"tracestate": cloudevents.Quote(r.Headers[bus.HeaderTraceState]), "time": cloudevents.Quote(r.Timestamp.UTC().Format(time.RFC3339)),
	}
	e.form = cloudevents.FormOf(r.ContentType, e.data)
	return e
}

// envelope is the CloudEvent as one JSON object.
func (e event) envelope() []byte { return cloudevents.Join(e.attributes, e.form, e.data) }

// rawEnvelope is what a subscriber gets that asked for raw payloads: what was sent, in base64.
func rawEnvelope(payload []byte, id, pubsub, topic string) []byte {
	return cloudevents.Object(map[string]jsontext.Value{
		"id": cloudevents.Quote(id), "specversion": cloudevents.Quote("1.0"), "datacontenttype": cloudevents.Quote("application/octet-stream"), "source": cloudevents.Quote("Dapr"),
		"type": cloudevents.Quote(cloudevents.TypeOfDapr), "topic": cloudevents.Quote(topic), "pubsubname": cloudevents.Quote(pubsub),
		"data_base64": cloudevents.Quote(base64.StdEncoding.EncodeToString(payload)),
	})
}
