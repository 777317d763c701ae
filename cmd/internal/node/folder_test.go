//go:build unix

package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// Two nodes that are strangers to each other's sessions and events do not share a folder by accident.
func TestOneEmbeddedNodeAFolder(t *testing.T) {
	embedded := &config.Config{DataDir: t.TempDir(), Messaging: config.Messaging{Backend: "memory"}}
	stores := []state.StoreConfig{{Name: "a", Backend: "sqlite"}}
	first, err := claimFolder(embedded, stores)
	require.NoError(t, err)
	_, err = claimFolder(embedded, stores)
	require.ErrorContains(t, err, "in use by another node")
	require.ErrorContains(t, err, "--data-dir")
	require.NoError(t, first.Close())
	again, err := claimFolder(embedded, stores)
	require.NoError(t, err)
	require.NoError(t, again.Close())

	joined := &config.Config{DataDir: embedded.DataDir, Messaging: config.Messaging{Backend: "rabbitmq"}}
	for range 2 {
		f, err := claimFolder(joined, stores)
		require.NoError(t, err)
		require.Nil(t, f, "SQLite serves several processes, and the rest is on servers")
	}
}
