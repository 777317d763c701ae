package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
)

// A share of nothing is refused, and is not all.
func TestShareOfAMirror(t *testing.T) {
	for text, refused := range map[string]string{
		"{to: redis, sample: 0}":   "sample is 0",
		"{to: redis, sample: 1.5}": "sample is 1.5",
		"{to: redis, sample: 0.1}": "",
		"{to: redis}":              "",
	} {
		file := filepath.Join(t.TempDir(), "bannou.yaml")
		require.NoError(t, os.WriteFile(file, []byte("state: {mirrors: {accounts: "+text+"}}"), 0o600))
		mirrors, err := config.File(file).Mirrors()
		require.NoError(t, err)
		c := &config.Config{State: config.State{RedisURL: "redis://h", Mirrors: mirrors}}
		if err = c.Resolve(); refused == "" {
			if err != nil { // of what else is missing here
				require.NotContains(t, err.Error(), "sample")
			}
			continue
		}
		require.ErrorContains(t, err, refused)
	}
}
