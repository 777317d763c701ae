package mesh_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
)

// What the contract says that the service listens to is what it listens to, with the directory that every node has.
func TestItListensToWhatTheContractSays(t *testing.T) {
	var declared []string
	for _, s := range events.Subscriptions("mesh") {
		declared = append(declared, s.Topic)
	}
	slices.Sort(declared)
	n := start(t)
	soon(t, func() bool {
		topics, err := n.bus.Topics(t.Context())
		require.NoError(t, err)
		var heard []string
		for _, topic := range topics {
			if !strings.HasPrefix(topic.Name, "dead-letter.") {
				heard = append(heard, topic.Name)
			}
		}
		return slices.Equal(declared, heard)
	}, fmt.Sprintf("declared: %v", declared))
}
