package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// properties are the publish options of an event as the outbox keeps them. Rows outlive versions of the program: members
// are added, never renamed.
type properties struct {
	MessageID     string            `json:"messageId"`
	Type          string            `json:"type,omitempty"`
	ContentType   string            `json:"contentType"`
	Exchange      string            `json:"exchange,omitempty"`
	RoutingKey    string            `json:"routingKey,omitempty"`
	CorrelationID string            `json:"correlationId,omitempty"`
	Priority      uint8             `json:"priority,omitempty"`
	Expiration    time.Duration     `json:"expiration,omitempty"` // nanoseconds, from when the row was made
	Transient     bool              `json:"transient,omitempty"`
	Mandatory     bool              `json:"mandatory,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
}

// NewEntry is an event as a row, with the trace of the context. The message id of its options is that of the event.
func NewEntry(ctx context.Context, p bus.Prepared) (state.OutboxEntry, error) {
	o := p.Options
	headers := maps.Clone(o.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(headers))
	encoded, err := json.Marshal(properties{
		MessageID: o.MessageID, Type: o.Type, ContentType: o.ContentType, Exchange: o.Exchange, RoutingKey: o.RoutingKey,
		CorrelationID: o.CorrelationID, Priority: o.Priority, Expiration: o.Expiration, Transient: o.Transient,
		Mandatory: o.Mandatory, Headers: headers,
	})
	if err != nil {
		return state.OutboxEntry{}, fmt.Errorf("the options of event %s cannot be kept: %w", o.MessageID, err)
	}
	return state.OutboxEntry{Key: o.PartitionKey, Topic: p.Topic, Properties: encoded, Body: p.Body}, nil
}

// readOptions is how a row is to be published.
func readOptions(e *state.OutboxEntry) (bus.PublishOptions, error) {
	var p properties
	if err := json.Unmarshal(e.Properties, &p); err != nil {
		return bus.PublishOptions{}, fmt.Errorf("the properties of the row cannot be read: %w", err)
	}
	return bus.PublishOptions{
		MessageID: p.MessageID, Type: p.Type, ContentType: p.ContentType, Exchange: p.Exchange, RoutingKey: p.RoutingKey,
		CorrelationID: p.CorrelationID, PartitionKey: e.Key, Priority: p.Priority, Expiration: p.Expiration,
		Transient: p.Transient, Mandatory: p.Mandatory, Headers: p.Headers,
	}, nil
}

// MessageID is the id of the event that a row keeps, empty where that cannot be read.
func MessageID(e *state.OutboxEntry) string {
	options, _ := readOptions(e)
	return options.MessageID
}
