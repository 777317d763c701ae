package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Topics that are shared with Dapr are in the file, under names that may have dots, and what does not fit together is refused.
func TestDaprTopics(t *testing.T) {
	parsed := func(text string, more ...string) (flags, error) {
		return parse(t, append([]string{"--config", file(t, text), "--messaging-backend", "redis", "--messaging-redis-url", "redis://127.0.0.1"}, more...)...)
	}
	f, err := parsed("messaging:\n  daprTopics:\n    order.placed: {publish: envelope, pubsub: broker, name: Orders}\n    stock: {subscribe: native}\n")
	require.NoError(t, err)
	placed, stock := f.Messaging.DaprTopics["order.placed"], f.Messaging.DaprTopics["stock"]
	require.Equal(t, []string{"dapr", "envelope", "broker", "Orders"}, []string{placed.Subscribe, placed.Publish, placed.PubSub, placed.Name})
	require.Equal(t, []string{"native", "native"}, []string{stock.Subscribe, stock.Publish})
	require.True(t, placed.AutoDelete(), "as with Dapr")

	for text, says := range map[string]string{
		"o: {publish: both}":                        `publish is "both"`,
		"o: {subscribe: all}":                       `subscribe is "all"`,
		"o: {subscribe: native, publish: envelope}": "would not reach its own subscriptions",
		"o: {durable: true}\n    p: {}":             "the same for all topics",
		"o: {deletedWhenUnused: false}\n    p: {}":  "the same for all topics",
		"o: {misspelt: 1}":                          "misspelt",
	} {
		_, err := parsed("messaging:\n  daprTopics:\n    " + text + "\n")
		require.ErrorContains(t, err, says, text)
	}
	_, err = parse(t, "--config", file(t, "messaging:\n  daprTopics:\n    o: {}\n"))
	require.ErrorContains(t, err, "this node's is memory")
}
