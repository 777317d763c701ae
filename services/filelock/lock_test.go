//go:build unix

package filelock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/filelock"
)

// One at a time has the file, and the next when that one has closed it.
func TestOneHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	first, second := open(), open()
	require.NoError(t, filelock.Lock(first))
	require.ErrorIs(t, filelock.Lock(second), filelock.ErrTaken)
	require.NoError(t, first.Close())
	require.NoError(t, filelock.Lock(second))
}
