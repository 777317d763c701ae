//go:build unix

package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Lock takes the file for who has it open, until it is closed, and does not wait: another one's lock is ErrTaken. Any other error says that the
// file system has no locks.
func Lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrTaken
	}
	return err
}
