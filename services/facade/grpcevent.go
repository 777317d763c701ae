package facade

import (
	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// topicEvent is an event as an app gets it that speaks gRPC.
func (d *delivery) topicEvent(path string, r *bus.Received, e event) *daprpb.TopicEventRequest {
	one := &daprpb.TopicEventRequest{Topic: d.wanted.Topic, PubsubName: d.wanted.PubSub, Path: path}
	if d.wanted.raw() {
		one.Id, one.Source, one.Type, one.SpecVersion = r.MessageID, "Dapr", cloudevents.TypeOfDapr, "1.0"
		one.DataContentType, one.Data = opaque, payload(r, e)
		return one
	}
	one.Id, one.Source, one.Type, one.SpecVersion = e.text("id"), e.text("source"), e.text("type"), e.text("specversion")
	one.DataContentType, one.Data = e.text("datacontenttype"), e.data
	extensions := map[string]any{}
	for name, value := range e.attributes {
		switch name {
		case "id", "source", "type", "specversion", "datacontenttype":
			continue
		}
		var v any
		if json.Unmarshal(value, &v) == nil {
			extensions[name] = v
		}
	}
	one.Extensions, _ = structpb.NewStruct(extensions) // what JSON has, a Struct has
	return one
}

// bulkEvent is the form of a bulk delivery, of one event.
func bulkEvent(one *daprpb.TopicEventRequest, r *bus.Received) *daprpb.TopicEventBulkRequest {
	return &daprpb.TopicEventBulkRequest{
		Id: r.MessageID, Topic: one.GetTopic(), PubsubName: one.GetPubsubName(), Type: cloudevents.TypeOfDapr + ".bulk", Path: one.GetPath(),
		Entries: []*daprpb.TopicEventBulkRequestEntry{{
			EntryId: r.MessageID, ContentType: cloudevents.ContentType,
			Event: &daprpb.TopicEventBulkRequestEntry_CloudEvent{CloudEvent: &daprpb.TopicEventCERequest{
				Id: one.GetId(), Source: one.GetSource(), Type: one.GetType(), SpecVersion: one.GetSpecVersion(),
				DataContentType: one.GetDataContentType(), Data: one.GetData(), Extensions: one.GetExtensions(),
			}},
		}},
	}
}
