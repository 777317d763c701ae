package servers_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// What is left out is said once, whatever else is said, and no test runs on.
func TestSkipAloud(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skipped")
	t.Setenv(servers.SkippedFile, path)
	for _, sentence := range []string{"no npm", "no npm", "no daprd"} {
		t.Run(sentence, func(t *testing.T) {
			servers.SkipAloud(t, sentence+" in "+path)
			t.Error("it goes on")
		})
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "no npm in "+path+"\nno daprd in "+path+"\n", string(content))
}
