//go:build linux || darwin

package sqlitestate

import "syscall"

// freeBytes is how much room the disk of a folder has for this user; false: nobody can tell.
func freeBytes(folder string) (int64, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // their types differ between systems
}
