package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/facade"
)

// How many events are in work is what the component says, and otherwise what the node does.
func TestPrefetchOfComponents(t *testing.T) {
	for said, want := range map[string]int{"": 10, "0": 10, "100": 100, "many": 0, "-1": 0, "70000": 0} {
		n, err := prefetch(facade.Component{Metadata: map[string]string{"prefetchcount": said}}, 10)
		require.Equal(t, want, n, said)
		require.Equal(t, want == 0, err != nil, said)
	}
}
