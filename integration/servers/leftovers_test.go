package servers_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// ending names, for a child of this test binary, how it is to end.
const ending = "SERVERS_TEST_ENDING"

// TestNothingStaysBehind starts servers in another test process and lets that one end in every way a test process can. Temporary
// folders and processes left on a developer's machine are found weeks later, when its disk or memory is full.
func TestNothingStaysBehind(t *testing.T) {
	for _, how := range []string{"close", "forget", "panic", "interrupt", "kill", "kill a cluster", "kill a disk"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			if how == "kill a disk" {
				servers.NewSmallDisk(t, 1<<20) // skips where nobody may mount one
			}
			temporary := t.TempDir()
			out, err := child(t, "TestEndSomehow", "TMPDIR="+temporary, ending+"="+how).CombinedOutput()
			require.Contains(t, string(out), "servers run", "the servers did not start: %v", err)
			require.Equal(t, how != "close" && how != "forget", err != nil, "%v\n%s", err, out)

			if how == "close" {
				files, err := os.ReadDir(temporary)
				require.NoError(t, err)
				require.Empty(t, files, "Main came back before the folders were gone")
			}
			// The reapers work when the process is gone; helpers of the broker take a moment to see its end.
			require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, temporary)) }, patience, 10*time.Millisecond)
		})
	}
}

// TestEndSomehow is the other process.
func TestEndSomehow(t *testing.T) {
	how := os.Getenv(ending)
	if how == "" {
		t.Skip("runs as a child of TestNothingStaysBehind")
	}
	switch how {
	case "close", "kill": // the others end in the same way for each server, and RabbitMQ takes its time
		servers.All(t)
	case "kill a cluster":
		servers.NewRabbitCluster(t, 2, servers.RabbitOptions{})
	case "kill a disk":
		file, err := os.Create(filepath.Join(servers.NewSmallDisk(t, 1<<20), "open"))
		require.NoError(t, err)
		defer file.Close()
	}
	paused := servers.NewRedis(t, servers.RedisOptions{})
	require.NoError(t, paused.Pause()) // SIGTERM would never reach it
	require.NotEmpty(t, left(t, os.Getenv("TMPDIR")), "the search finds nothing")
	fmt.Fprintln(os.Stdout, "servers run")
	switch how {
	case "forget":
		os.Exit(0) // without Main
	case "panic":
		panic("a test that fails badly")
	case "interrupt":
		signal(t, syscall.SIGINT)
	case "kill", "kill a cluster", "kill a disk":
		signal(t, syscall.SIGKILL)
	}
}

func signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(os.Getpid(), s))
	<-t.Context().Done() // the test does not end before the process
}

// child runs one test of this binary in a process of its own.
func child(t *testing.T, test string, env ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), binary, "-test.run=^"+test+"$", "-test.v")
	c.Env = append(os.Environ(), env...)
	return c
}

// left lists the files in the folder and the processes that know its path, where the system shows their environment.
func left(t *testing.T, folder string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	own := fmt.Sprintf("/proc/%d/environ", os.Getpid())
	for _, file := range environments {
		content, err := os.ReadFile(file)
		if err == nil && file != own && bytes.Contains(content, []byte(folder)) { // others end while we look, or are not ours to read
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, fmt.Sprintf("%s %.200s", file, bytes.ReplaceAll(name, []byte{0}, []byte(" "))))
		}
	}
	return found
}
