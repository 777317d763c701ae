package redisbus

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// ownKeys begins the metadata keys of the bus. A publisher's headers under such names are not sent: they would be taken
// for properties.
const ownKeys = "_bannou_"

// The properties that watermill-redisstream has no field for.
const (
	keyExchange      = ownKeys + "exchange"
	keyRoutingKey    = ownKeys + "routing_key"
	keyType          = ownKeys + "type"
	keyContentType   = ownKeys + "content_type"
	keyTimestamp     = ownKeys + "timestamp" // RFC 3339
	keyCorrelationID = ownKeys + "correlation_id"
	keyPriority      = ownKeys + "priority"
	keyExpiration    = ownKeys + "expiration" // as time.Duration.String
	keyTransient     = ownKeys + "transient"
	keyAttempt       = ownKeys + "attempt" // of the next delivery; absent: 1
)

// encode is a message as the fields of a stream's entry, to be delivered as this attempt.
func encode(m *bus.Message, attempt int) (map[string]any, error) {
	out := message.NewMessage(m.ID, m.Body)
	for name, value := range m.Headers {
		if !reserved(name) {
			out.Metadata[name] = value
		}
	}
	put := func(key, value string) {
		if value != "" {
			out.Metadata[key] = value
		}
	}
	put(keyExchange, m.Exchange)
	put(keyRoutingKey, m.RoutingKey)
	put(keyType, m.Type)
	put(keyContentType, m.ContentType)
	put(keyCorrelationID, m.CorrelationID)
	if !m.Timestamp.IsZero() {
		put(keyTimestamp, m.Timestamp.UTC().Format(time.RFC3339Nano))
	}
	if m.Priority > 0 {
		put(keyPriority, strconv.Itoa(int(m.Priority)))
	}
	if m.Expiration > 0 {
		put(keyExpiration, m.Expiration.String())
	}
	if m.Transient {
		put(keyTransient, "true")
	}
	if attempt > 1 {
		put(keyAttempt, strconv.Itoa(attempt))
	}
	fields, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(m.RoutingKey, out)
	if err != nil {
		return nil, fmt.Errorf("%w: the message cannot be written as an entry of a stream: %w", bus.ErrInvalid, err)
	}
	return fields, nil
}

func reserved(name string) bool {
	return strings.HasPrefix(name, ownKeys) || name == redisstream.UUIDHeaderKey
}

// decode reads a message, and the number of its attempt, from the fields of an entry. It takes any property: one that
// cannot be read counts as absent. It fails only where there is no payload, or metadata that is none: bus.ErrInvalid.
func decode(fields map[string]any) (*bus.Message, int, error) {
	if _, found := fields["payload"].(string); !found {
		return nil, 0, fmt.Errorf("%w: the entry has no field \"payload\"", bus.ErrInvalid)
	}
	known := maps.Clone(fields)
	for _, field := range []string{redisstream.UUIDHeaderKey, "metadata"} {
		if _, isText := known[field].(string); !isText {
			known[field] = ""
		}
	}
	in, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(known)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the entry's metadata cannot be read: %w", bus.ErrInvalid, err)
	}
	m := &bus.Message{ID: in.UUID, Headers: make(map[string]string, len(in.Metadata)), Body: in.Payload}
	attempt := 1
	for key, value := range in.Metadata {
		if key == keyAttempt {
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				attempt = n
			}
			continue
		}
		if !setProperty(m, key, value) && !reserved(key) {
			m.Headers[key] = value
		}
	}
	return m, attempt, nil
}

// encodeEnvelope is a message as the fields of an entry that Dapr reads: the envelope is its data, and what else there is its metadata, as a
// JSON object of strings.
func encodeEnvelope(m *bus.Message, attempt int) (map[string]any, error) {
	plain := *m
	plain.Body = nil
	fields, err := encode(&plain, attempt)
	if err != nil {
		return nil, err
	}
	kept, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(asRead(fields))
	if err != nil {
		return nil, fmt.Errorf("%w: the message cannot be written as an entry of a stream: %w", bus.ErrInvalid, err)
	}
	delete(kept.Metadata, bus.HeaderEnvelope)
	kept.Metadata[redisstream.UUIDHeaderKey] = m.ID
	metadata, err := json.Marshal(kept.Metadata, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("%w: the message's headers cannot be written: %w", bus.ErrInvalid, err)
	}
	return map[string]any{"data": string(m.Body), "metadata": string(metadata)}, nil
}

// decodeEnvelope reads an entry of Dapr's.
func decodeEnvelope(fields map[string]any) (m *bus.Message, found bool) {
	data, isData := fields["data"].(string)
	if _, own := fields["payload"]; own || !isData {
		return nil, false
	}
	m = &bus.Message{Headers: map[string]string{bus.HeaderEnvelope: "true"}, Body: []byte(data)}
	var metadata map[string]string
	text, _ := fields["metadata"].(string)
	_ = json.Unmarshal([]byte(text), &metadata) // Dapr writes what its publisher gave, and no property
	for key, value := range metadata {
		switch {
		case key == redisstream.UUIDHeaderKey:
			m.ID = value
		case !setProperty(m, key, value) && !reserved(key):
			m.Headers[key] = value
		}
	}
	m.Exchange = "" // where it lies says it
	return m, true
}

// asRead is the fields of an entry as Redis returns them.
func asRead(fields map[string]any) map[string]any {
	read := make(map[string]any, len(fields))
	for name, value := range fields {
		switch v := value.(type) {
		case []byte:
			read[name] = string(v)
		case message.Payload:
			read[name] = string(v)
		default:
			read[name] = value
		}
	}
	return read
}

// setProperty sets the property that a metadata key stands for, and reports whether it stands for one.
func setProperty(m *bus.Message, key, value string) bool {
	switch key {
	case keyExchange:
		m.Exchange = value
	case keyRoutingKey:
		m.RoutingKey = value
	case keyType:
		m.Type = value
	case keyContentType:
		m.ContentType = value
	case keyCorrelationID:
		m.CorrelationID = value
	case keyTransient:
		m.Transient = value == "true"
	case keyTimestamp:
		if at, err := time.Parse(time.RFC3339Nano, value); err == nil {
			m.Timestamp = at
		}
	case keyPriority:
		if n, err := strconv.ParseUint(value, 10, 8); err == nil && n <= 9 {
			m.Priority = uint8(n)
		}
	case keyExpiration:
		if d, err := time.ParseDuration(value); err == nil && d > 0 {
			m.Expiration = d
		}
	default:
		return false
	}
	return true
}
