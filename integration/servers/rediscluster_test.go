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

// A replica takes the place of a master that is killed, which comes back as its replica, and nothing is left behind when all
// is closed.
func TestRedisCluster(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	c, err := servers.StartRedisCluster(ctx, servers.RedisClusterOptions{Replicas: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(), "a second time does nothing") }()
	t.Logf("a cluster of 6 answers after %v", time.Since(begin).Round(time.Millisecond))
	require.Len(t, c.URLs(), 6)
	require.Equal(t, []string{"master", "master", "master", "slave", "slave", "slave"}, c.Roles(ctx))

	require.NoError(t, c.Nodes[1].Kill())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.Equal(t, []string{"master", "", "master", "slave", "master", "slave"}, c.Roles(ctx))
	}, patience, 50*time.Millisecond)
	require.NoError(t, c.Nodes[1].Restart(ctx))
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.Equal(t, []string{"master", "slave", "master", "slave", "master", "slave"}, c.Roles(ctx))
	}, patience, 50*time.Millisecond)
	require.NoError(t, c.Await(ctx))

	require.NoError(t, c.Close())
	files, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, files)
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, temporary)) }, patience, 10*time.Millisecond)
}
