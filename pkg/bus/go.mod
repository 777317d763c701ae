module github.com/bannou-mesh/bannou/pkg/bus

go 1.26
