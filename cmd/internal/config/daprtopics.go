package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/knadh/koanf/v2"
)

// daprTopicsKey holds, in the file, the topics that are shared with apps of Dapr.
const daprTopicsKey = "messaging.daprTopics"

// DaprTopic says how a topic is shared with apps of Dapr on the same broker; only in the YAML file, under messaging.daprTopics.TOPIC.
type DaprTopic struct {
	Subscribe         string `koanf:"subscribe"`         // dapr or native
	Publish           string `koanf:"publish"`           // envelope or native
	PubSub            string `koanf:"pubsub"`            // Dapr's name of the broker, for envelopes
	Name              string `koanf:"name"`              // Dapr's name of the topic
	Durable           bool   `koanf:"durable"`           // as in Dapr's component: of an exchange that is not there yet
	DeletedWhenUnused *bool  `koanf:"deletedWhenUnused"` // as durable; nil: true, as with Dapr
}

// DaprTopics reads the shared topics of the YAML file; none when no file is named.
func (f File) DaprTopics() (map[string]DaprTopic, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	topics := map[string]DaprTopic{}
	if err := values.UnmarshalWithConf(daprTopicsKey, &topics, koanf.UnmarshalConf{DecoderConfig: strict(&topics)}); err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, daprTopicsKey, oneLine(err))
	}
	return topics, nil
}

// checkDaprTopics checks the shared topics, and fills in what was left out.
func (c *Config) checkDaprTopics() error {
	topics := c.Messaging.DaprTopics
	if len(topics) == 0 {
		return nil
	}
	if b := c.Messaging.Backend; b != "rabbitmq" && b != "redis" {
		return fmt.Errorf("%s shares topics with apps of Dapr on their broker, and this node's is %s: set --messaging-backend to rabbitmq or redis", daprTopicsKey, cmp.Or(b, "memory"))
	}
	first := topics[slices.Min(slices.Collect(maps.Keys(topics)))]
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		t := topics[topic]
		t.Subscribe, t.Publish = cmp.Or(t.Subscribe, "dapr"), cmp.Or(t.Publish, "native")
		where := daprTopicsKey + "." + topic
		switch {
		case t.Subscribe != "dapr" && t.Subscribe != "native":
			return fmt.Errorf("%s.subscribe is %q: choose dapr (what apps of Dapr publish is read too) or native", where, t.Subscribe)
		case t.Publish != "envelope" && t.Publish != "native":
			return fmt.Errorf("%s.publish is %q: choose envelope (apps of Dapr can read what is published) or native", where, t.Publish)
		case t.Publish == "envelope" && t.Subscribe != "dapr":
			return fmt.Errorf("%s.publish is envelope and subscribe is native: what this node publishes would not reach its own subscriptions; set subscribe to dapr", where)
		case t.Durable != first.Durable || t.AutoDelete() != first.AutoDelete():
			return fmt.Errorf("%s: durable and deletedWhenUnused are those of Dapr's component, and the same for all topics of a broker", where)
		}
		topics[topic] = t
	}
	return nil
}

// AutoDelete reports whether Dapr's exchange goes with the last who reads it.
func (t DaprTopic) AutoDelete() bool { return t.DeletedWhenUnused == nil || *t.DeletedWhenUnused }
