package meshtest_test

import (
	"testing"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func TestTable(t *testing.T) {
	meshtest.RunTable(t, func(*testing.T) mesh.Table { return meshtest.NewTable() })
}

func TestFeed(t *testing.T) {
	meshtest.RunFeed(t, func(*testing.T) (here, there mesh.Feed) {
		f := new(meshtest.Feed)
		return f, f
	})
}
