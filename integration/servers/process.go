package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// poll is how often a state is looked at that nobody announces.
const poll = 10 * time.Millisecond

// process is a child of ours, which leads a process group. It is waited for by polling, not by a goroutine.
type process struct {
	pid    int
	ended  bool
	status syscall.WaitStatus
	record string // file with the number of the group, deleted when the process has ended; may be empty
}

// command is a program of a server.
type command struct {
	name string // of its log
	path string
	args []string
	env  []string
	// ready waits until the command does its work, when the next one needs that; may be nil.
	ready func(context.Context) error
}

// start runs a command in the folder, as the leader of a process group that is written down there before the program begins.
func (f *folder) start(c command) (*process, error) {
	log, err := os.OpenFile(f.log(c.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	record := f.group(c.name)
	args := append([]string{"sh", "-ec", `echo $$ >"$0"; exec "$@"`, record, c.path}, c.args...)
	p, err := spawn("/bin/sh", args, &os.ProcAttr{
		Dir: f.path, Env: c.env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(c.path), err)
	}
	p.record = record
	return p, nil
}

// run runs a command in the folder to its end and kills it when the context ends before.
func (f *folder) run(ctx context.Context, c command) error {
	p, err := f.start(c)
	if err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", filepath.Base(c.path), err), p.kill())
	}
	if p.status.ExitStatus() != 0 {
		return fmt.Errorf("%s ended with %s", filepath.Base(c.path), p.outcome())
	}
	return nil
}

func spawn(path string, args []string, attr *os.ProcAttr) (*process, error) {
	child, err := os.StartProcess(path, args, attr)
	if err != nil {
		return nil, err
	}
	pid := child.Pid
	return &process{pid: pid}, child.Release()
}

// alive reports whether the process runs or is paused.
func (p *process) alive() bool { return !p.collect(syscall.WNOHANG) }

// collect reports whether the process has ended, and takes its status when it has just done so.
func (p *process) collect(options int) bool {
	for !p.ended {
		pid, err := syscall.Wait4(p.pid, &p.status, options, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err == nil && pid == 0:
			return false
		}
		p.ended = true // by its end, or because somebody else waited for it
		if p.record != "" {
			_ = os.Remove(p.record) // gone with the folder otherwise
		}
	}
	return true
}

// wait returns when the process has ended, or the context.
func (p *process) wait(ctx context.Context) error {
	if p.collect(syscall.WNOHANG) {
		return nil
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if p.collect(syscall.WNOHANG) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// signal reaches the whole process group.
func (p *process) signal(s syscall.Signal) error {
	if !p.alive() {
		return ErrNotRunning
	}
	if err := syscall.Kill(-p.pid, s); err != nil {
		return fmt.Errorf("send %s to process group %d: %w", s, p.pid, err)
	}
	return nil
}

// kill ends the group with SIGKILL and returns when the process is gone.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	p.collect(0)
	return nil
}

// stop ends the group with SIGTERM, and with SIGKILL when the context ends first.
func (p *process) stop(ctx context.Context) error {
	err := p.signal(syscall.SIGTERM)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	// A paused process takes the signal only once it goes on.
	err = errors.Join(err, p.signal(syscall.SIGCONT))
	if waiting := p.wait(ctx); waiting != nil {
		return errors.Join(err, fmt.Errorf("it did not end after SIGTERM and was killed: %w", waiting), p.kill())
	}
	if errors.Is(err, ErrNotRunning) {
		return nil // it ended between the two signals
	}
	return err
}

func (p *process) outcome() string {
	if p.status.Signaled() {
		return p.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}
