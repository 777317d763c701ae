// Package components are those that a daprd for Bannou's tests has: what the tests configure, and nothing else. tools/install-daprd has Dapr's own
// program compiled with this file in the place of the one that registers none and panics.
package components

import (
	"github.com/dapr/components-contrib/nameresolution/mdns"
	memorypubsub "github.com/dapr/components-contrib/pubsub/in-memory"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	redispubsub "github.com/dapr/components-contrib/pubsub/redis"
	"github.com/dapr/components-contrib/secretstores/local/env"
	"github.com/dapr/components-contrib/secretstores/local/file"
	memorystate "github.com/dapr/components-contrib/state/in-memory"
	"github.com/dapr/components-contrib/state/mysql"
	redisstate "github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/secretstores"
	"github.com/dapr/dapr/pkg/components/state"
)

func init() {
	nameresolution.DefaultRegistry.RegisterComponent(mdns.NewResolver, "mdns")

	pubsub.DefaultRegistry.RegisterComponent(memorypubsub.New, "in-memory")
	pubsub.DefaultRegistry.RegisterComponent(rabbitmq.NewRabbitMQ, "rabbitmq")
	pubsub.DefaultRegistry.RegisterComponent(redispubsub.NewRedisStreams, "redis")

	secretstores.DefaultRegistry.RegisterComponent(env.NewEnvSecretStore, "local.env")
	secretstores.DefaultRegistry.RegisterComponent(file.NewLocalSecretStore, "local.file")

	state.DefaultRegistry.RegisterComponent(memorystate.NewInMemoryStateStore, "in-memory")
	state.DefaultRegistry.RegisterComponent(mysql.NewMySQLStateStore, "mysql")
	state.DefaultRegistry.RegisterComponent(redisstate.NewRedisStateStore, "redis")
}
