package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// folder is a temporary folder that is gone when this process is, with the processes started in it.
//
// A shell, the reaper, holds the reading end of a pipe whose only writing end is ours. The system closes our end when this process ends,
// even by SIGKILL, and the shell then cleans up. That is more than Linux's parent death signal, which follows a thread instead of the
// process, reaches direct children only, leaves files, and does not exist elsewhere.
type folder struct {
	path   string
	hold   *os.File // closing it sets the reaper to work
	reaper *process
}

// Each process writes the number of its process group, which it leads, to groups/ before it becomes the server; it is deleted when the process has ended.
// A small disk is mounted at disk, and taken away also while a file on it is open.
const reap = `
while read -r _; do :; done
for group in "$0"/groups/*; do
	[ -f "$group" ] && kill -9 "-$(cat "$group")"
done
[ -d "$0/disk" ] && umount -l "$0/disk" 2>/dev/null
rm -rf "$0" || { sleep 1; rm -rf "$0"; }`

func newFolder(name string) (*folder, error) {
	// Short, because the path of a Unix socket below it has about 100 bytes.
	path, err := os.MkdirTemp("", "bannou-"+name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", name, err)
	}
	f, err := guard(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guard the folder of %s: %w", name, err), os.RemoveAll(path))
	}
	return f, nil
}

func guard(path string) (*folder, error) {
	if err := os.Mkdir(filepath.Join(path, "groups"), 0o700); err != nil {
		return nil, err
	}
	reading, writing, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = reading.Close() }() // the child has its own
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, errors.Join(err, writing.Close())
	}
	defer func() { _ = null.Close() }()
	// Not our output: whoever reads it to its end, as go test does, would wait for the reaper.
	reaper, err := spawn("/bin/sh", []string{"sh", "-c", reap, path}, &os.ProcAttr{
		Dir: "/", Env: environment("/"), Files: []*os.File{reading, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, errors.Join(err, writing.Close())
	}
	return &folder{path: path, hold: writing, reaper: reaper}, nil
}

// remove kills what still runs in the folder and removes it.
func (f *folder) remove(ctx context.Context) error {
	if f.hold == nil {
		return nil
	}
	err := f.hold.Close()
	f.hold = nil
	return errors.Join(err, f.reaper.wait(ctx), os.RemoveAll(f.path))
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// log is the file that holds the output of a command.
func (f *folder) log(name string) string { return f.file(name + ".log") }

func (f *folder) group(name string) string { return filepath.Join(f.path, "groups", name) }
