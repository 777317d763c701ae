module github.com/bannou-mesh/bannou/events

go 1.26
