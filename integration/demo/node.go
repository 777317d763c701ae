package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bannou-mesh/bannou/integration/link"
)

// readyPoll is how often a node that starts is asked whether it is ready.
const readyPoll = 5 * time.Millisecond

// A node is a process of the program.
type node struct {
	name, address string
	log           string // file
	cmd           *exec.Cmd
	ended         chan struct{}
	killed        bool
}

// startNode returns when the node is ready. A node that is not is returned with the error, to be stopped.
func startNode(ctx context.Context, binary, folder, name string, s link.Servers) (*node, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	n := &node{name: name, address: address, log: filepath.Join(folder, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(n.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()                                                                       // the node has its own
	n.cmd = exec.Command(binary, "serve", "--listen", address, "--instance-id", name, "--services", "state", //nolint:gosec,noctx // ours; it is ended by stop
		"--data-dir", filepath.Join(folder, name), "--messaging-backend", "redis", "--drain-timeout", "5s")
	// Addresses with passwords belong into the environment, which others cannot read. A developer's own settings stay out.
	n.cmd.Env = append(withoutSettings(os.Environ()), "BANNOU_MESSAGING_REDIS_URL="+s.Bus, "BANNOU_STATE_REDIS_URL="+s.Registry)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = apart()
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(n.ended)
		_ = n.cmd.Wait() // whoever ended it knows how
	}()
	return n, n.ready(ctx)
}

func withoutSettings(all []string) (env []string) {
	for _, e := range all {
		if !strings.HasPrefix(e, "BANNOU_") {
			env = append(env, e)
		}
	}
	return env
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// ready waits until the node says that it is.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-n.ended:
			return fmt.Errorf("node %s ended while it started: %s", n.name, n.words())
		case <-ctx.Done():
			return fmt.Errorf("node %s is not ready: %w: %s", n.name, ctx.Err(), n.words())
		}
	}
}

// words are what the node has logged.
func (n *node) words() string {
	said, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(said)
}

// kill ends the node as a power cut would.
func (n *node) kill() error {
	n.killed = true
	err := n.cmd.Process.Kill()
	<-n.ended
	return err
}

// stop ends the node as an operator would, and by force when the context ends first.
func (n *node) stop(ctx context.Context) error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	select {
	case <-n.ended:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("node %s did not end and was killed: %s", n.name, n.words()), n.kill())
	}
}
