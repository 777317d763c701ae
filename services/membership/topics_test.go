package membership_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/services/membership"
)

func TestTopicsThatTheMeshListensTo(t *testing.T) {
	for _, topic := range []string{events.TopicMeshEndpointRegistered, events.TopicMeshEndpointDeregistered, events.TopicMeshEndpointDegraded,
		events.TopicFullServiceMappings, events.TopicServiceRegistration, events.TopicServiceHeartbeats} {
		require.True(t, membership.IsTopic(topic), topic)
	}
	for _, topic := range []string{"account.created", "mesh", "meshes.endpoint.registered", events.TopicServiceError, "bannou"} {
		require.False(t, membership.IsTopic(topic), topic)
	}
}
