// Package program makes a program of a service that is not one of the suite's. It is a node like `bannou serve`: with the same settings, which
// it reads from the same places, the same drivers, health checks, metrics and membership in the mesh. `bannou new service` writes programs that use it.
package program

import (
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
	"github.com/bannou-mesh/bannou/cmd/internal/node"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

// A Program is a service with what it needs of its node.
type Program struct {
	// Name is that of the service and, unless settings say otherwise, the app-id of its instances: lower-case words with dashes between them.
	Name string
	// Stores are the service's own. Nobody reaches them through the state service.
	Stores []Store
	// New makes the service, and subscribes it, before anything runs.
	New func(Parts) (host.Service, error)
}

// A Store is one that a service keeps.
type Store struct {
	// Name is unique among the stores of the node: not one of those that are for programs in any language.
	Name string
	// Expiring is for data that may be gone with its server, such as sessions: it is on Redis, or in memory where none is configured. Other
	// stores last: they are on MySQL, or in SQLite.
	Expiring bool
	// Indexes are members of the values by which they are found quickly. Only stores that last have some.
	Indexes []string
}

// Parts are what a service is made of. They are the node's: a service closes none of them.
type Parts struct {
	// Bus publishes events, and has handlers called.
	Bus *bus.Bus
	// Factory has the program's stores.
	Factory *state.Factory
	// Mesh calls other services by their names.
	Mesh *mesh.Client
	// Logger is the node's.
	Logger *slog.Logger
	// MeterProvider makes metrics that /metrics shows.
	MeterProvider metric.MeterProvider
}

// Main runs the program with the arguments of the process, and returns its exit code, as that of `bannou serve`: 0 it was told to end and did,
// 1 it failed, 2 the command line or the settings are wrong.
func Main(p Program, version string) int {
	own := &node.Own{Name: p.Name}
	for _, s := range p.Stores {
		own.Stores = append(own.Stores, node.OwnStore(s))
	}
	own.New = func(parts node.OwnParts) (host.Service, error) { return p.New(Parts(parts)) }
	return cli.Program(own, os.Args[1:], version, os.Stdin, os.Stdout, os.Stderr)
}
