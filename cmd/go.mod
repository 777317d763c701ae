module github.com/bannou-mesh/bannou/cmd

go 1.26

require (
	github.com/bannou-mesh/bannou/events v0.0.0
	github.com/bannou-mesh/bannou/pkg/bus v0.0.0
	github.com/bannou-mesh/bannou/pkg/mesh v0.0.0
	github.com/bannou-mesh/bannou/pkg/state v0.0.0
	github.com/bannou-mesh/bannou/services v0.0.0
)

replace (
	github.com/bannou-mesh/bannou/events => ../events
	github.com/bannou-mesh/bannou/pkg/bus => ../pkg/bus
	github.com/bannou-mesh/bannou/pkg/mesh => ../pkg/mesh
	github.com/bannou-mesh/bannou/pkg/state => ../pkg/state
	github.com/bannou-mesh/bannou/services => ../services
)
