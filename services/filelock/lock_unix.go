//go:build unix

package migration

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the file for who holds it open, or returns errTaken.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	return err
}
