package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// A run of some faults leaves the rows of the others on the page.
func TestPageKeepsRelays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults.md")
	page := func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	require.NoError(t, faults.WritePage(path, nil, nil, nil, []faults.RelayRow{{Fault: "leader killed"}}, nil))
	for _, events := range [][]faults.EventRow{{{Fault: "server killed"}}, nil, {{Fault: "server killed"}}} {
		require.NoError(t, faults.WritePage(path, nil, nil, events, nil, nil))
		require.Equal(t, 1, strings.Count(page(), "| leader killed |"))
		require.Equal(t, 1, strings.Count(page(), "| server killed |"))
	}
	require.NoError(t, faults.WritePage(path, nil, nil, nil, []faults.RelayRow{{Fault: "leader stopped"}}, []faults.MeshRow{{}}))
	require.NotContains(t, page(), "| leader killed |")
	require.Equal(t, 1, strings.Count(page(), "| leader stopped |"))
	require.Equal(t, 1, strings.Count(page(), "| server killed |"))
	require.Less(t, strings.Index(page(), "## Events"), strings.Index(page(), "## Outbox and inbox"))
}
