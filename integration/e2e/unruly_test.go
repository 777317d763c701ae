package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnruly tells the stories of players on a bus on which messages come twice, late, and in another order than they were sent.
// The whole of these tests runs on it with BANNOU_TEST_BINARY.
func TestUnruly(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "unruly")
	built, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/bannou-mesh/bannou/cmd/internal/unruly").CombinedOutput()
	require.NoError(t, err, "%s", built)
	start := func(t *testing.T, args ...string) *node {
		n := launchAs(t, program, freeAddress(t), append(quick(), args...)...)
		n.waitReady(t)
		return n
	}
	t.Run("embedded", func(t *testing.T) {
		n := start(t)
		accountsAndSessions(t, n, n)
		play(t, stage{suite: direct(n.url), gateways: []string{n.url}})
	})
	t.Run("servers", func(t *testing.T) {
		place, traces := placeOfPlayers(t)
		here, there := start(t, place...), start(t, place...)
		accountsAndSessions(t, here, there)
		play(t, stage{suite: direct(here.url), gateways: []string{there.url}, traces: traces})
	})
}
