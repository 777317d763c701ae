module github.com/bannou-mesh/bannou/cmd

go 1.26.0

require (
	github.com/bannou-mesh/bannou/events v0.0.0
	github.com/bannou-mesh/bannou/pkg/bus v0.0.0
	github.com/bannou-mesh/bannou/pkg/mesh v0.0.0
	github.com/bannou-mesh/bannou/pkg/state v0.0.0
	github.com/bannou-mesh/bannou/services v0.0.0
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/fsnotify/fsnotify v1.9.0 // indirect
	github.com/go-viper/mapstructure/v2 v2.5.0 // indirect
	github.com/knadh/koanf/maps v0.1.2 // indirect
	github.com/knadh/koanf/parsers/yaml v1.1.1 // indirect
	github.com/knadh/koanf/providers/file v1.2.1 // indirect
	github.com/knadh/koanf/v2 v2.4.1 // indirect
	github.com/mitchellh/copystructure v1.2.0 // indirect
	github.com/mitchellh/reflectwalk v1.0.2 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/bannou-mesh/bannou/events => ../events
	github.com/bannou-mesh/bannou/pkg/bus => ../pkg/bus
	github.com/bannou-mesh/bannou/pkg/mesh => ../pkg/mesh
	github.com/bannou-mesh/bannou/pkg/state => ../pkg/state
	github.com/bannou-mesh/bannou/services => ../services
)
