package e2e

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// `make demo-mesh`: a node of three is killed under load, another joins, no call fails, and nothing is left running.
func TestDemonstration(t *testing.T) {
	servers.Redis(t) // skips where there is none
	demo := filepath.Join(t.TempDir(), "demo")
	out, err := exec.Command("go", "build", "-o", demo, "github.com/bannou-mesh/bannou/integration/demo").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Run("no errors", func(t *testing.T) { demonstrates(t, demo) })
	t.Run("errors are told", func(t *testing.T) { tellsErrors(t, demo) })
	t.Run("interrupted", func(t *testing.T) { isInterrupted(t, demo) })
}

func demonstrates(t *testing.T, demo string) {
	cmd := exec.Command(demo, "-binary", binary, "-act", "600ms")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	require.Regexp(t, `✓ [0-9 ]+ calls, 0 errors`, string(said))
	require.Regexp(t, `bob is killed`, string(said))
	require.Regexp(t, `dan joins`, string(said))
	for _, name := range []string{"ada", "bob", "cay", "dan"} {
		require.Regexp(t, `(?m)^  `+name+` +[1-9][0-9 ]* calls answered`, string(said))
	}
	gone(t, said)
}

// Where nobody is left to call, calls fail, and the demonstration says so.
func tellsErrors(t *testing.T, demo string) {
	cmd := exec.Command(demo, "-binary", binary, "-act", "300ms", "-nodes", "1")
	said, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), "%s", said)
	require.Contains(t, string(said), "not every call was answered")
	require.Contains(t, string(said), "✗")
	gone(t, said)
}

// An interrupt in the middle ends everything that was started.
func isInterrupted(t *testing.T, demo string) {
	cmd := exec.Command(demo, "-binary", binary, "-act", "1m")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var said bytes.Buffer
	require.NoError(t, cmd.Start())
	killer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer killer.Stop()
	underLoad := regexp.MustCompile(`^ +\d\.\ds `)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if underLoad.MatchString(lines.Text()) {
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			underLoad = regexp.MustCompile(`^\z.`) // once is enough
		}
	}
	_ = cmd.Wait()
	require.Equal(t, 130, cmd.ProcessState.ExitCode(), "%s", &said)
	require.Contains(t, said.String(), "Interrupted")
	gone(t, said.Bytes())
}

// gone looks for the nodes that the demonstration has told of.
func gone(t *testing.T, said []byte) {
	t.Helper()
	nodes := regexp.MustCompile(`a node, process (\d+)`).FindAllSubmatch(said, -1)
	require.NotEmpty(t, nodes, "%s", said)
	for _, n := range nodes {
		pid, err := strconv.Atoi(string(n[1]))
		require.NoError(t, err)
		assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d is left", pid)
	}
}
