package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An engine of its own that is killed leaves no process, and what it leaves of files and cgroups the next one removes.
func TestNothingOfAKilledEngineStays(t *testing.T) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("no Docker engine is installed; `make compose-test` sees to it")
	}
	if out, err := exec.CommandContext(t.Context(), "../../compose/offline/engine", "--possible").CombinedOutput(); err != nil {
		t.Skipf("no engine can run here: %s", out)
	}
	temporary, err := os.MkdirTemp("", "b-") // short, as paths of sockets are
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(temporary)) })
	engine := func(command ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "../../compose/offline/engine", command...)
		cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
		return cmd
	}
	up := filepath.Join(temporary, "up")
	killed := engine("sh", "-c", `: >"$0"; exec sleep 100`, up)
	killed.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, killed.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(up); return err == nil }, patience, 20*time.Millisecond, "the engine comes up")
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())
	left := func(pattern string) []string {
		found, err := filepath.Glob(filepath.Join(temporary, pattern))
		require.NoError(t, err)
		return found
	}
	require.Len(t, left("bannou-engine-*"), 1, "the killed one could not remove its folder")
	pid := left("bannou-engine-*/pid")
	require.Len(t, pid, 1)

	require.Eventually(t, func() bool { return len(knowing(t, temporary)) == 0 }, patience, 20*time.Millisecond, "its processes are killed with it")
	// Not all is free at once: the next one waits for no one, and removes what is free.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := engine("true").CombinedOutput()
		require.NoError(c, err, "%s", out)
		found, err := filepath.Glob(filepath.Join(temporary, "bannou-engine-*"))
		require.NoError(c, err)
		require.Empty(c, found)
	}, patience, 100*time.Millisecond, "what it left is removed")
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/bannou-engine-*")
	require.NoError(t, err)
	for _, c := range cgroups {
		require.NotContains(t, c, filepath.Base(filepath.Dir(pid[0])))
	}
}

// knowing lists the processes whose command line has the text.
func knowing(t *testing.T, text string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), text) { // others end while we look
			found = append(found, string(line))
		}
	}
	return found
}
