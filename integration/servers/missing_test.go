package servers

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	testify "github.com/stretchr/testify/require"
)

// TestMissingServer runs a test that needs a program which is not installed, on a developer's machine and in continuous integration.
func TestMissingServer(t *testing.T) {
	run := func(ci string) (string, error) {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNeedsMissing$", "-test.v")
		c.Env = append(os.Environ(), "SERVERS_TEST_MISSING=1", "CI="+ci)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, ci := range []string{"", "false"} {
		out, err := run(ci)
		testify.NoError(t, err, "it must not fail where CI is %q:\n%s", ci, out)
		assert.Contains(t, out, "--- SKIP: TestNeedsMissing")
		assert.Contains(t, out, "RabbitMQ is not installed (no rabbitmq-server found): run 'make deps', or install rabbitmq-server (apt)")
		assert.Contains(t, out, "BANNOU_TEST_RABBITMQ_URL")
	}
	out, err := run("true")
	testify.Error(t, err, "it must fail in continuous integration")
	assert.Contains(t, out, "--- FAIL: TestNeedsMissing")
	assert.Contains(t, out, "make deps")
}

// TestNeedsMissing is that test.
func TestNeedsMissing(t *testing.T) {
	if os.Getenv("SERVERS_TEST_MISSING") == "" {
		t.Skip("runs as a child of TestMissingServer")
	}
	t.Setenv("PATH", "")
	_, found := executable([]string{"rabbitmq-server"}, []string{t.TempDir() + "/*/rabbitmq-server"}, nil)
	testify.False(t, found)
	require(t, rabbitProduct().missing("rabbitmq-server"))
}

// TestTakenPort starts a server on a port that somebody takes between its choice and its use.
func TestTakenPort(t *testing.T) {
	program, found := executable([]string{"redis-server"}, nil, nil)
	if !found {
		require(t, redisProduct().missing("redis-server"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var tried []int
	server, ports, err := launch(ctx, plan{
		product: redisProduct(),
		ports:   1,
		prepare: func(ctx context.Context, f *folder, ports []int) ([]command, error) {
			if len(tried) == 0 {
				stealPort(ctx, t, program, ports[0])
			}
			tried = append(tried, ports[0])
			return []command{{name: "redis", path: program, args: RedisOptions{}.args(f, ports[0], "ours"), env: environment(f.path)}}, nil
		},
		probe: func(ctx context.Context, ports []int) error {
			return pingRedis(ctx, &redis.Options{Addr: local(ports[0]), Password: "ours"})
		},
	})
	testify.NoError(t, err)
	testify.NoError(t, server.Close())
	testify.Len(t, tried, 2, "another Redis was taken for ours")
	testify.Equal(t, tried[1], ports[0])
}

// TestPortTakenElsewhere starts Erlang's port mapper on a port that is free on 127.0.0.1 and taken on ::1. It ends, and says nothing.
func TestPortTakenElsewhere(t *testing.T) {
	_, epmd, err := findRabbit()
	if err != nil {
		require(t, err)
	}
	steal := func(ctx context.Context, port int) error {
		thief, err := new(net.ListenConfig).Listen(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
		if err == nil {
			t.Cleanup(func() { testify.NoError(t, thief.Close()) })
		}
		return err
	}
	if err := steal(t.Context(), 0); err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	var tried []int
	server, ports, err := launch(t.Context(), plan{
		product: rabbitProduct(),
		ports:   1,
		prepare: func(ctx context.Context, f *folder, ports []int) ([]command, error) {
			if len(tried) == 0 {
				testify.NoError(t, steal(ctx, ports[0]))
			}
			tried = append(tried, ports[0])
			return []command{epmdCommand(f, epmd, ports[0])}, nil
		},
		probe: func(ctx context.Context, ports []int) error { return reachable(ctx, local(ports[0])) },
	})
	testify.NoError(t, err)
	testify.NoError(t, server.Close())
	testify.Len(t, tried, 2)
	testify.Equal(t, tried[1], ports[0])
}

// stealPort runs another Redis on the port until the test is over.
func stealPort(ctx context.Context, t *testing.T, program string, port int) {
	t.Helper()
	f, err := newFolder("thief")
	testify.NoError(t, err)
	t.Cleanup(func() { testify.NoError(t, f.remove(context.Background())) })
	_, err = f.start(command{name: "thief", path: program, args: RedisOptions{}.args(f, port, "theirs"), env: environment(f.path)})
	testify.NoError(t, err)
	testify.Eventually(t, func() bool { return reachable(ctx, local(port)) == nil }, time.Minute, 10*time.Millisecond)
}

func TestPortsAreNotThoseOfConnections(t *testing.T) {
	ports, err := freePorts(t.Context(), 50)
	testify.NoError(t, err)
	seen := map[int]bool{}
	for _, port := range ports {
		testify.False(t, seen[port])
		seen[port] = true
		testify.Less(t, port, 32768)
		testify.False(t, usual(port))
	}
}
