package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal returns the two ends of a new terminal: what a person has, and what a program has.
func openTerminal(t *testing.T, rows, columns uint16) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this system has no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// On a terminal `endpoints --watch` draws a table that follows the mesh, no taller than the screen, and Ctrl-C leaves the
// last one behind.
func TestWatchingOnATerminal(t *testing.T) {
	n := startNode(t, "--instance-id", "self")
	s := direct(n.url)
	base, _ := receiver(t, ok)
	person, program := openTerminal(t, 8, 120)
	cmd := exec.Command(binary, "endpoints", "--watch", "--every", "20ms", "--node", n.url)
	cmd.Env = cleanEnvironment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	seen := new(lockedBuffer)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for buffer := make([]byte, 4096); ; {
			n, err := person.Read(buffer)
			_, _ = seen.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	// screen is what was drawn last, as a person sees it.
	screen := func() string {
		drawings := bytes.Split([]byte(seen.String()), []byte("\x1b[H"))
		if len(drawings) < 3 {
			return ""
		}
		return strings.NewReplacer("\x1b[K", "", "\x1b[J", "", "\r", "").Replace(string(drawings[len(drawings)-2]))
	}
	shows := func(want ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			now := screen()
			for _, w := range want {
				if !strings.Contains(now, w) {
					return false
				}
			}
			return true
		}, patience, 5*time.Millisecond, "%q", want)
	}
	shows("1 endpoints", "APP-ID", "self", "healthy")
	register(t, s, "game", "one", base)
	shows("2 endpoints", "one")
	for i := range 9 {
		register(t, s, "game", fmt.Sprintf("more-%d", i), base)
	}
	shows("11 endpoints", "more: name an app-id to see fewer")
	require.LessOrEqual(t, strings.Count(screen(), "\n"), 7)

	_, err := person.Write([]byte{3}) // Ctrl-C
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("Ctrl-C did not end it")
	}
	require.NoError(t, program.Close()) // whoever reads the other end is told that all is read
	select {
	case <-read:
	case <-time.After(patience):
		t.Fatal(errors.New("the terminal was not closed"))
	}
	_, left, found := strings.Cut(seen.String(), "\x1b[?1049l")
	require.True(t, found, "the first screen is back")
	require.Contains(t, left, "more-8", "with the whole table")
}
