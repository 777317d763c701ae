package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared holds the servers of this test binary. It is the one thing here that outlives a test: a server each would cost every test seconds.
var shared struct { //nolint:gochecknoglobals // said above
	rabbit once[*RabbitServer]
	redis  once[*RedisServer]
	mysql  once[*MySQLServer]
}

// once starts a server when it is first asked for, and keeps the server or the failure.
type once[S interface{ Close() error }] struct {
	mu     sync.Mutex
	asked  bool
	server S
	err    error
}

func (o *once[S]) get(external func() (S, bool, error), start func(context.Context) (S, error)) (S, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asked {
		return o.server, o.err
	}
	o.asked = true
	var named bool
	if o.server, named, o.err = external(); named || o.err != nil {
		return o.server, o.err
	}
	// Not a test's context: the server serves the tests that follow.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	o.server, o.err = start(ctx)
	return o.server, o.err
}

func (o *once[S]) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asked || o.err != nil {
		return nil
	}
	o.asked = false
	return o.server.Close()
}

// Main runs the tests of a binary, closes the shared servers they have used, and returns the exit code. It is the body of TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if err := Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Close closes the shared servers of this process, all at once. It is for a TestMain that does more than Main; the next test that asks for a shared
// server starts it anew.
func Close() error {
	closers := []func() error{shared.rabbit.close, shared.redis.close, shared.mysql.close}
	failures := make([]error, len(closers))
	var wait sync.WaitGroup
	for i, closer := range closers {
		wait.Go(func() { failures[i] = closer() })
	}
	wait.Wait()
	return errors.Join(failures...)
}
