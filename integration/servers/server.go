package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds the start of a server for a test. RabbitMQ, the slowest, takes 4 to 5 s on two idle cores; three nodes of it took more
	// than a minute on two that twenty others shared.
	startTimeout = 3 * time.Minute
	// stopTimeout bounds a graceful stop where the caller gives no context.
	stopTimeout = time.Minute
	// probeTimeout bounds one probe of a server that is starting.
	probeTimeout = 2 * time.Second
	// logLines is how much of a log an error shows. RabbitMQ tells its reason first and some 50 lines of Erlang after it.
	logLines = 80
	// portAttempts is how often a server is given other ports because somebody took the ones it had been given.
	portAttempts = 3
)

// Server is the life of one server: what RabbitMQ, Redis and MySQL have in common. Its methods may be called concurrently; they take effect
// one after another.
type Server struct {
	name     string
	refusal  error // what faults are answered with; nil for a private server
	probe    func(context.Context) error
	commands []command // started in this order, stopped in the reverse

	mu        sync.Mutex
	folder    *folder // nil for an external server and after Close
	processes []*process
}

// plan says how to start a server in a folder, on ports.
type plan struct {
	product product
	ports   int
	// prepare writes what the server needs and returns its commands.
	prepare func(ctx context.Context, f *folder, ports []int) ([]command, error)
	// probe talks to the server in its own protocol. It has to fail with another server of its kind that has taken the port: the account of
	// each of ours has a password of its own.
	probe func(ctx context.Context, ports []int) error
}

// errAnother is a server that ended at once and in peace. So does Erlang's port mapper, without a word, when its port is taken, be it on ::1 only,
// where it listens too.
var errAnother = errors.New("perhaps another serves on its port")

// launch starts a server and returns it with its ports when it answers.
func launch(ctx context.Context, p plan) (*Server, []int, error) {
	return onFreePorts(ctx, p.product, p.ports, p.launch)
}

// onFreePorts starts something on n free ports, and on others again where somebody has taken one of them meanwhile.
func onFreePorts[S any](ctx context.Context, of product, n int, start func(ctx context.Context, ports []int) (S, error)) (S, []int, error) {
	var failure error
	for range portAttempts {
		ports, err := freePorts(ctx, n)
		if err != nil {
			failure = fmt.Errorf("start %s: %w", of.name, err)
			break
		}
		started, err := start(ctx, ports)
		if err == nil {
			return started, ports, nil
		}
		failure = err
		if taken := errors.Is(err, errAnother) || slices.ContainsFunc(ports, func(port int) bool { return !free(ctx, port) }); !taken || ctx.Err() != nil {
			break
		}
	}
	var none S
	return none, nil, failure
}

func (p plan) launch(ctx context.Context, ports []int) (*Server, error) {
	f, err := newFolder(strings.ToLower(p.product.name))
	if err != nil {
		return nil, err
	}
	s := &Server{name: p.product.name, folder: f, probe: func(ctx context.Context) error { return p.probe(ctx, ports) }}
	s.commands, err = p.prepare(ctx, f, ports)
	if err == nil {
		err = s.start(ctx)
	} else {
		err = fmt.Errorf("prepare %s: %w%s", s.name, err, s.logs())
	}
	if err != nil {
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // also when the context has ended
	}
	return s, nil
}

// start runs the commands and waits until the server answers. The caller holds mu, or is alone.
func (s *Server) start(ctx context.Context) error {
	err := s.run(ctx)
	if err == nil {
		err = s.await(ctx)
	}
	if err != nil {
		err = fmt.Errorf("start %s: %w%s", s.name, err, s.logs())
		return errors.Join(err, s.kill())
	}
	return nil
}

func (s *Server) run(ctx context.Context) error {
	for _, c := range s.commands {
		p, err := s.folder.start(c)
		if err != nil {
			return err
		}
		s.processes = append(s.processes, p)
		if c.ready != nil {
			if err := s.until(ctx, c.ready); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) await(ctx context.Context) error { return s.until(ctx, s.probe) }

// until repeats a probe until it succeeds, the context ends, or a process does.
func (s *Server) until(ctx context.Context, probe func(context.Context) error) error {
	ticker := time.NewTicker(2 * poll)
	defer ticker.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, probeTimeout)
		err := probe(attempt)
		cancel()
		for i, p := range s.processes {
			// Also after a success: whoever answered was not this process.
			if !p.alive() {
				err := fmt.Errorf("%s ended at once (%s)", s.commands[i].name, p.outcome())
				if p.status.ExitStatus() == 0 {
					err = fmt.Errorf("%w: %w", err, errAnother)
				}
				return err
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w (last: %w)", ctx.Err(), err)
		}
	}
}

// Kill ends the server with SIGKILL, as a crash would, and returns when it is gone. Restart brings it back with the data it had.
func (s *Server) Kill() error {
	return s.fault("kill", func() error {
		if !s.running() {
			return ErrNotRunning
		}
		return s.kill()
	})
}

// Pause stops the server with SIGSTOP: its connections stay open and nothing answers. Pausing a paused server changes nothing.
func (s *Server) Pause() error {
	return s.fault("pause", func() error { return s.signal(syscall.SIGSTOP) })
}

// Resume lets a paused server go on. Resuming a running server changes nothing.
func (s *Server) Resume() error {
	return s.fault("resume", func() error { return s.signal(syscall.SIGCONT) })
}

// Stop ends the server gracefully, paused or not, and returns when it is gone; when the context ends first the server is killed and that is
// an error. Data and port are kept for Restart. Stopping a server that does not run changes nothing.
func (s *Server) Stop(ctx context.Context) error {
	return s.fault("stop", func() error { return s.stop(ctx) })
}

// Restart stops the server gracefully if it runs, starts it again on the same port with the same data, and returns when it answers.
func (s *Server) Restart(ctx context.Context) error {
	return s.fault("restart", func() error {
		if s.folder == nil {
			return ErrClosed
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
		return s.start(ctx)
	})
}

// Probe asks the server in its own protocol whether it is there: a connection for RabbitMQ, PING for Redis, SELECT 1 for MySQL. Where the context
// ends first the error is its error.
func (s *Server) Probe(ctx context.Context) error {
	err := s.probe(ctx)
	if err == nil {
		return nil
	}
	// Deadlines of connections are taken from the context and may fire first, with errors of their own.
	if deadline, bounded := ctx.Deadline(); bounded && !time.Now().Before(deadline) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return fmt.Errorf("probe %s: %w", s.name, err)
}

// Close ends the server at once and removes its folder. Closing it again, or closing an external server, changes nothing. Only the part of a
// shared server that belongs to the test is given back.
func (s *Server) Close() error {
	if s.refusal != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discard()
}

// Logs returns the last lines of what the server has written, or nothing when it is external or closed.
func (s *Server) Logs() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs()
}

func (s *Server) fault(action string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.refusal
	if err == nil {
		err = do()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, s.name, err)
	}
	return nil
}

// part is the server as one test of several sees it.
func (s *Server) part(probe func(context.Context) error) *Server {
	refusal := s.refusal
	if refusal == nil {
		refusal = ErrShared
	}
	return &Server{name: s.name, refusal: refusal, probe: probe}
}

func (s *Server) running() bool {
	return len(s.processes) > 0 && s.processes[len(s.processes)-1].alive()
}

func (s *Server) signal(sig syscall.Signal) error {
	if !s.running() {
		return ErrNotRunning
	}
	return s.processes[len(s.processes)-1].signal(sig)
}

func (s *Server) kill() error {
	var failures []error
	for _, p := range slices.Backward(s.processes) {
		failures = append(failures, p.kill())
	}
	s.processes = nil
	return errors.Join(failures...)
}

func (s *Server) stop(ctx context.Context) error {
	var failures []error
	for _, p := range slices.Backward(s.processes) {
		failures = append(failures, p.stop(ctx))
	}
	s.processes = nil
	return errors.Join(failures...)
}

func (s *Server) discard() error {
	if s.folder == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := errors.Join(s.kill(), s.folder.remove(ctx))
	s.folder = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", s.name, err)
	}
	return nil
}

func (s *Server) logs() string {
	if s.folder == nil {
		return ""
	}
	entries, err := os.ReadDir(s.folder.path)
	if err != nil {
		return ""
	}
	var out strings.Builder
	for _, entry := range entries {
		name, isLog := strings.CutSuffix(entry.Name(), ".log")
		if !isLog {
			continue
		}
		if content, err := os.ReadFile(s.folder.log(name)); err == nil && len(content) > 0 {
			fmt.Fprintf(&out, "\nlast lines of %s:\n%s", name, lastLines(content))
		}
	}
	return out.String()
}

func lastLines(content []byte) []byte {
	lines := bytes.Split(bytes.TrimRight(content, "\n"), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-logLines):], []byte("\n"))
}
