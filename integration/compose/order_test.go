package compose

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Nodes are started before there is a server, live, say that they are not ready, and work once the servers are there: with no
// restart, and nothing that waited for anything.
func TestServersStartedLast(t *testing.T) {
	s := newStack(t)
	s.compose(t, append([]string{"up", "--detach", "--no-build", "--no-deps"}, s.nodes...)...)
	for _, base := range s.bases {
		require.Eventually(t, func() bool { return status(base+"/healthz") == http.StatusOK }, patience, 20*time.Millisecond, "%s lives", base)
		require.Eventually(t, func() bool { return status(base+"/readyz") == http.StatusServiceUnavailable }, patience, 20*time.Millisecond,
			"%s says that its servers are not there", base)
	}
	for _, node := range s.nodes {
		require.False(t, s.healthy(t, node), "%s cannot work without servers", node)
	}
	for _, server := range servers {
		require.Empty(t, s.containers(t, server))
	}

	s.compose(t, "up", "--detach", "--no-build")
	for _, service := range append(append([]string{}, servers...), s.nodes...) {
		require.Eventually(t, func() bool { return s.healthy(t, service) }, patience, 250*time.Millisecond, "%s is in good health", service)
	}
	// Good health is not all: a node that keeps its events is ready while it has not found the broker yet. Events of others that come in between,
	// on a broker that is new, find no queue of it.
	for _, node := range s.nodes {
		for i := range s.containers(t, node) {
			health := append(slices.Clone(s.command), "exec", "-T", "--index", strconv.Itoa(i+1), node, "/bannou", "health")
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				said, err := try(t, health...) // it fails as well, while queues are being made on the broker that was found
				assert.NoError(c, err)
				assert.NotContains(c, said, "degraded")
			}, patience, 250*time.Millisecond, "%s has found all of its servers", node)
		}
	}
	for _, node := range s.nodes {
		for _, c := range s.containers(t, node) {
			require.Zero(t, c.RestartCount, "%s was there all the time", c.Name)
		}
	}
	if s.shape == "split" {
		require.Eventually(t, func() bool {
			c := s.containers(t, "mappings")[0]
			return c.State.Status == "exited" && c.State.ExitCode == 0
		}, patience, 250*time.Millisecond, "the mesh is told where the services run")
	}
}

// status is that of a GET; 0 for none.
func status(url string) int {
	res, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = res.Body.Close() // only the status counts
	return res.StatusCode
}
