package node

import (
	"log/slog"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// sharing has a broker share topics with apps of Dapr where the settings name such.
func sharing(cfg *config.Config, driver bus.Driver, log *slog.Logger) (bus.Driver, error) {
	sharer, able := driver.(daprtopics.Sharer)
	if len(cfg.Messaging.DaprTopics) == 0 || !able {
		return driver, nil
	}
	topics := map[string]daprtopics.Topic{}
	for topic, t := range cfg.Messaging.DaprTopics {
		topics[topic] = daprtopics.Topic{Name: t.Name, PubSub: t.PubSub, Subscribe: t.Subscribe == "dapr", Publish: t.Publish == "envelope"}
	}
	shared, err := daprtopics.New(sharer, daprtopics.Config{Topics: topics, Logger: log})
	if err != nil {
		return nil, err
	}
	return shared, nil
}

// withDaprsExchanges says how Dapr declares the exchanges of topics.
func withDaprsExchanges(c rabbitbus.Config, topics map[string]config.DaprTopic) rabbitbus.Config {
	for _, t := range topics { // they are all alike
		c.DaprDurable, c.DaprAutoDelete = t.Durable, t.AutoDelete()
	}
	return c
}
