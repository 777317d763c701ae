package membership

import (
	"strings"

	"github.com/bannou-mesh/bannou/events"
)

// IsTopic reports whether the mesh listens to a topic: what is published on it decides who is called.
func IsTopic(topic string) bool {
	return strings.HasPrefix(topic, "mesh.endpoint.") || strings.HasPrefix(topic, "bannou-service-") || topic == events.TopicFullServiceMappings
}
