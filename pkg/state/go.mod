module github.com/bannou-mesh/bannou/pkg/state

go 1.26
