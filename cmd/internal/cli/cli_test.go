package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
)

// A container that has BANNOU_LISTEN for its node, or a shell with a stray BANNOU_ETAG, changes no other command.
func TestVariablesAreForSettings(t *testing.T) {
	for command, want := range map[string][]string{
		"echo":       nil,
		"state save": {"$BANNOU_NODE", "$BANNOU_OUTPUT", "$BANNOU_TOKEN_FILE", "$BANNOU_CA_FILE", "$BANNOU_CERT_FILE", "$BANNOU_KEY_FILE"},
		"tail":       {"$BANNOU_NODE", "$BANNOU_OUTPUT", "$BANNOU_TOKEN_FILE", "$BANNOU_CA_FILE", "$BANNOU_CERT_FILE", "$BANNOU_KEY_FILE"},
	} {
		var out, errs bytes.Buffer
		require.Zero(t, cli.Main(append(strings.Fields(command), "--help"), "test", nil, &out, &errs), errs.String())
		require.Equal(t, len(want), strings.Count(out.String(), "$BANNOU_"), out.String())
		for _, name := range want {
			require.Contains(t, out.String(), name)
		}
	}
	var out bytes.Buffer
	require.Zero(t, cli.Main([]string{"serve", "--help"}, "test", nil, &out, &out))
	require.Contains(t, out.String(), "$BANNOU_LISTEN")
}

// The file that a container names for its node stands in the way of no other command, such as its health check.
func TestTheFileOfANodeIsForNodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	require.NoError(t, os.WriteFile(file, []byte("messaging: {rabbitmqManagementUrl: http://broker:15672}\n"), 0o600))
	t.Setenv("BANNOU_CONFIG", file)
	var out, errs bytes.Buffer
	require.Zero(t, cli.Main([]string{"version"}, "test", nil, &out, &errs), errs.String())
	require.Equal(t, 1, cli.Main([]string{"health", "--node", "http://127.0.0.1:1"}, "test", nil, &out, &errs), errs.String())
}
