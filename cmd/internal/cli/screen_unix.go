//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// screenHeight is how many lines a terminal shows, 0 where that is not known.
func screenHeight(terminal *os.File) int {
	size, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Row)
}
