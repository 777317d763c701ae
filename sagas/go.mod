module github.com/bannou-mesh/bannou/sagas

go 1.26.0

require (
	github.com/bannou-mesh/bannou/events v0.0.0-00010101000000-000000000000
	github.com/bannou-mesh/bannou/pkg/bus v0.0.0
	github.com/bannou-mesh/bannou/pkg/mesh v0.0.0-00010101000000-000000000000
	github.com/bannou-mesh/bannou/pkg/state v0.0.0-00010101000000-000000000000
	github.com/go-json-experiment/json v1.27.2
	github.com/google/uuid v1.6.0
	github.com/stretchr/testify v1.12.1
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/metric v1.47.0
	go.uber.org/goleak v1.3.0
	pgregory.net/rapid v1.3.0
)

require (
	github.com/ThreeDotsLabs/watermill v1.5.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace (
	github.com/bannou-mesh/bannou/events => ../events
	github.com/bannou-mesh/bannou/pkg/bus => ../pkg/bus
	github.com/bannou-mesh/bannou/pkg/mesh => ../pkg/mesh
	github.com/bannou-mesh/bannou/pkg/state => ../pkg/state
)
