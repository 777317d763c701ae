module github.com/bannou-mesh/bannou/tools

go 1.26
