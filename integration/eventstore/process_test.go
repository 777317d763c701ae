package eventstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A process runs work until its standard input ends, or it is killed.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	read  sync.WaitGroup
	lines []string // what it has written, when it has ended
}

func startProcess(t *testing.T, dsn, work string) *process {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.CommandContext(t.Context(), program)}
	p.cmd.Env = append(os.Environ(), processDSN+"="+dsn, processWork+"="+work)
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	p.read.Go(func() {
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			p.lines = append(p.lines, scanner.Text())
		}
	})
	return p
}

// end has it finish, and returns what it has written.
func (p *process) end(t *testing.T) []string {
	t.Helper()
	require.NoError(t, p.stdin.Close())
	p.read.Wait()
	require.NoError(t, p.cmd.Wait())
	return p.lines
}

// kill gives it no time for anything.
func (p *process) kill(t *testing.T) []string {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	p.read.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, p.cmd.Wait(), &exit)
	return p.lines
}

// work is what such a process does.
func work(dsn, what string) int {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var err error
	switch way, writers, _ := strings.Cut(what, " "); way {
	case "gaps":
		err = writeWithGaps(ctx, dsn, os.Stdout)
	default:
		err = appendAll(ctx, dsn, way, writers)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, what, err)
		return 1
	}
	return 0
}
