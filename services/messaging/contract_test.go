package messaging_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
)

// What the contract says that the service listens to is what it listens to.
func TestItListensToWhatTheContractSays(t *testing.T) {
	var declared []string
	for _, s := range events.Subscriptions("messaging") {
		declared = append(declared, s.Topic)
	}
	slices.Sort(declared)
	b := newBroker(t)
	b.start(t)
	require.Eventually(t, func() bool {
		topics, err := b.bus.Topics(t.Context())
		if err != nil {
			return false
		}
		var heard []string
		for _, topic := range topics {
			if !strings.HasPrefix(topic.Name, "dead-letter.") {
				heard = append(heard, topic.Name)
			}
		}
		return slices.Equal(declared, heard)
	}, 20*time.Second, 5*time.Millisecond, "declared: %v", declared)
}
