module github.com/bannou-mesh/bannou/integration

go 1.26.0

require (
	github.com/go-sql-driver/mysql v1.10.1
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/redis/go-redis/v9 v9.23.0
	github.com/stretchr/testify v1.12.1
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/bannou-mesh/bannou/cmd => ../cmd
	github.com/bannou-mesh/bannou/events => ../events
	github.com/bannou-mesh/bannou/pkg/bus => ../pkg/bus
	github.com/bannou-mesh/bannou/pkg/mesh => ../pkg/mesh
	github.com/bannou-mesh/bannou/pkg/state => ../pkg/state
	github.com/bannou-mesh/bannou/services => ../services
)
