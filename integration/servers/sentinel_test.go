package servers_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// Sentinels make a replica the master when the master is killed, take the killed one back as a replica, and leave nothing
// behind when all is closed.
func TestRedisSentinel(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := servers.StartRedisSentinel(ctx, servers.SentinelOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close(), "a second time does nothing") }()
	require.Len(t, s.Nodes, 2)
	require.Len(t, s.URLs, 3)
	first, err := s.Master(ctx)
	require.NoError(t, err)
	require.Same(t, s.Nodes[0], first)

	require.NoError(t, first.Kill())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		second, err := s.Master(ctx)
		assert.NoError(t, err)
		assert.Same(t, s.Nodes[1], second)
	}, patience, 50*time.Millisecond)
	require.NoError(t, first.Restart(ctx))
	require.NoError(t, first.Probe(ctx))

	require.NoError(t, s.Close())
	files, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, files)
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, temporary)) }, patience, 10*time.Millisecond)
}
