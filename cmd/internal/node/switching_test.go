package node

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/services/migration"
)

// A sharer is a broker that Dapr can use too, and that may tell who reads a topic.
type sharer struct {
	daprtopics.Sharer
	readers []bus.QueueInfo
	err     error
}

func (s sharer) DaprPlace(topic string) (exchange, pattern string) { return topic, "" }

func (s sharer) OtherReaders(context.Context, string) ([]bus.QueueInfo, error) {
	return s.readers, s.err
}

// A topic goes native when every broker that shares it was asked, those of the facade's components too, and none has a reader of Dapr.
func TestTopicsAreReadOnEveryBroker(t *testing.T) {
	cfg := &config.Config{Messaging: config.Messaging{Backend: "memory", DaprTopics: map[string]config.DaprTopic{"orders": {Subscribe: "dapr", Publish: "envelope"}}}}
	memory := memorybus.New(memorybus.Config{})
	t.Cleanup(func() { require.NoError(t, memory.Close(t.Context())) })
	shared := func(s sharer) bus.Driver {
		driver, err := sharing(cfg, "pubsub", s, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		return driver
	}
	silent, reader := shared(sharer{}), shared(sharer{readers: []bus.QueueInfo{{Name: "app-orders"}}})
	for name, c := range map[string]struct {
		own        bus.Driver
		components []bus.Driver // nil: there is no facade
		says       string       // empty: nobody reads it
	}{
		"nobody reads it here":                      {silent, nil, ""},
		"an app reads it here":                      {reader, nil, "such as app-orders"},
		"nobody reads it there":                     {memory, []bus.Driver{memory, silent}, ""},
		"an app reads it there":                     {silent, []bus.Driver{silent, reader}, "such as app-orders"},
		"an app reads it there, and here is memory": {memory, []bus.Driver{reader}, "such as app-orders"},
		"a component's broker cannot tell":          {memory, []bus.Driver{silent, shared(sharer{err: bus.ErrInvalid})}, "look there, and force"},
		"this one cannot tell":                      {shared(sharer{err: bus.ErrUnavailable}), nil, "is not known"},
		"no broker shares it":                       {memory, []bus.Driver{memory}, "look there, and force"},
		"no broker shares it, and no facade":        {memory, nil, "look there, and force"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{broker: c.own}
			if c.components != nil {
				n.dapr = &dapr{brokers: c.components}
			}
			err := switching{n, cfg, nil}.check(t.Context(), migration.Item{Kind: migration.KindTopic, Block: migration.BlockMessaging, Name: "orders"}, migration.Native)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}
}
