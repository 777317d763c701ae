package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/tools/eventgen/internal/schema"
)

// A codec is a JSON library that programs may use for events.
type codec struct {
	name   string
	encode func(any) ([]byte, error)
	decode func([]byte, any) error
}

func codecs() []codec {
	return []codec{
		{"encoding/json", json.Marshal, json.Unmarshal},
		{"json/v2",
			func(v any) ([]byte, error) { return jsonv2.Marshal(v) },
			func(body []byte, v any) error { return jsonv2.Unmarshal(body, v) }},
	}
}

// TestGeneratedTypesHoldWhatSchemasAllow draws documents that fit the schema of a topic, and wants each back, to the
// digit, after it went through the generated type, whichever library decodes it and whichever encodes it again.
func TestGeneratedTypesHoldWhatSchemasAllow(t *testing.T) {
	for _, file := range readSchemas(t).Files {
		for _, topic := range file.Topics {
			t.Run(topic.Name, func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					sent, err := jsonv2.Marshal(object(t, topic.Event.Type))
					require.NoError(t, err)
					for _, receiver := range codecs() {
						e, ok := events.New(topic.Name)
						require.True(t, ok)
						require.NoError(t, receiver.decode(sent, e), "%s decodes %s", receiver.name, sent)
						for _, sender := range codecs() {
							again, err := sender.encode(e)
							require.NoError(t, err)
							require.Equal(t, tree(t, sent), tree(t, again), "decoded by %s, encoded by %s", receiver.name, sender.name)
						}
					}
				})
			})
		}
	}
}

// TestRegistryKnowsWhatSchemasDeclare compares what programs can ask package events with the files.
func TestRegistryKnowsWhatSchemasDeclare(t *testing.T) {
	var topics []string
	for _, file := range readSchemas(t).Files {
		for _, topic := range file.Topics {
			topics = append(topics, topic.Name)
			e, ok := events.New(topic.Name)
			require.True(t, ok, topic.Name)
			require.Equal(t, topic.Event.Name, e.EventName())
			require.Equal(t, topic.Event.Name, events.TypeName(topic.Name))
		}
		var listens []events.Subscription
		for _, s := range file.Subscriptions {
			listens = append(listens, events.Subscription{Topic: s.Topic, Handler: file.Owner + "." + s.Handler, Event: s.Event.Name})
		}
		require.Equal(t, listens, events.Subscriptions(file.Owner))
	}
	require.ElementsMatch(t, topics, events.Topics())
}

func readSchemas(t *testing.T) *schema.Set {
	t.Helper()
	set, err := schema.Read(os.DirFS(schemas), "schemas")
	require.NoError(t, err)
	return set
}

// object draws a document of a type. Optional members are absent or have a value other than their zero: see package events.
func object(t *rapid.T, of *schema.Type) map[string]any {
	doc := map[string]any{}
	if of.Event {
		doc["eventId"] = text(t, "eventId")
		doc["timestamp"] = instant(t)
	}
	for _, e := range of.Embeds {
		for name, value := range object(t, e.Type) {
			doc[name] = value
		}
	}
	for _, p := range of.Properties {
		if p.Required || rapid.Bool().Draw(t, p.Name+" present") {
			doc[p.Name] = value(t, p.Shape, p.Name)
		}
	}
	return doc
}

func value(t *rapid.T, s *schema.Shape, name string) any {
	switch s.Kind {
	case schema.String, schema.UUID:
		return text(t, name)
	case schema.Time:
		return instant(t)
	case schema.Boolean:
		return true
	case schema.Integer, schema.Int32:
		return rapid.Int32Min(1).Draw(t, name)
	case schema.Int64:
		return rapid.Int64Min(1).Draw(t, name)
	case schema.Number:
		return rapid.Float64Range(1e-300, 1e300).Draw(t, name)
	case schema.Array:
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return value(t, s.Elem, name) }), 1, 3).Draw(t, name)
	case schema.Map:
		return rapid.MapOfN(rapid.String(), rapid.Custom(func(t *rapid.T) any { return value(t, s.Elem, name) }), 1, 3).Draw(t, name)
	default: // Named
		if s.Ref.Type.Kind == schema.Enum {
			return rapid.SampledFrom(s.Ref.Type.Values).Draw(t, name).Text
		}
		return object(t, s.Ref.Type)
	}
}

func text(t *rapid.T, name string) string {
	return rapid.StringN(1, 20, -1).Draw(t, name)
}

func instant(t *rapid.T) string {
	return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC().Format(time.RFC3339Nano)
}

// tree is a document with its numbers as they are written.
func tree(t *rapid.T, doc []byte) (v any) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&v))
	return v
}

// TestRequiredMembersThatAreNil pins what package events says of the two libraries: only json/v2 keeps to the schema.
func TestRequiredMembersThatAreNil(t *testing.T) {
	body, err := jsonv2.Marshal(&events.FullServiceMappingsEvent{})
	require.NoError(t, err)
	require.Contains(t, string(body), `"mappings":{}`)
	body, err = jsonv2.Marshal(&events.ServiceRegistrationEvent{})
	require.NoError(t, err)
	require.Contains(t, string(body), `"services":[]`)
	body, err = json.Marshal(&events.ServiceRegistrationEvent{})
	require.NoError(t, err)
	require.Contains(t, string(body), `"services":null`)
}
