package servers

import (
	"errors"
	"fmt"
)

var (
	// ErrMissing is reported when the program of a server is not installed. The error that wraps it says what to install.
	ErrMissing = errors.New("not installed")

	// ErrExternal is reported by Kill, Pause, Resume, Stop, Restart and Ctl of a server that the environment names: it is not ours to harm.
	ErrExternal = errors.New("the server was named by the environment and is not ours to stop")

	// ErrShared is reported by Kill, Pause, Resume, Stop, Restart and Ctl of a server that other tests use. Ask for a private one.
	ErrShared = errors.New("the server is shared with other tests: start a private one")

	// ErrNotRunning is reported by Kill, Pause, Resume and Ctl of a server that has been killed, stopped or closed, or that ended by itself.
	ErrNotRunning = errors.New("the server is not running")

	// ErrClosed is reported by Restart of a server whose folder has been removed by Close.
	ErrClosed = errors.New("the server is closed")
)

// product is what a reader has to know to get a server.
type product struct {
	name     string // as its makers write it
	debian   string // package name on Debian and Ubuntu
	fedora   string
	homebrew string
	variable string // environment variable that names a running one
}

func (p product) missing(program string) error {
	return fmt.Errorf("%s is %w (no %s found): run 'make deps', or install %s (apt), %s (dnf) or %s (brew), or set %s to the address of a running one",
		p.name, ErrMissing, program, p.debian, p.fedora, p.homebrew, p.variable)
}
