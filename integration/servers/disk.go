package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// NewSmallDisk returns a folder on a disk of its own, in memory, that holds the given number of bytes. It is gone when the test is over or this
// process is, like the folder of a server, also when files on it are open. Where nobody may mount one, the test is skipped.
func NewSmallDisk(t testing.TB, size int64) string {
	t.Helper()
	f, err := newFolder("disk")
	require(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := f.remove(ctx); err != nil {
			t.Errorf("remove a small disk: %v", err)
		}
	})
	disk := f.file("disk")
	require(t, os.Mkdir(disk, 0o700))
	mount := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", disk) //nolint:gosec // a number and a folder of ours
	if out, err := mount.CombinedOutput(); err != nil {
		t.Skipf("a small disk needs the right to mount one: %v: %s", err, out)
	}
	return disk
}
