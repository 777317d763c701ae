module github.com/bannou-mesh/bannou/pkg/mesh

go 1.26
