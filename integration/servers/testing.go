package servers

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// partTimeout bounds the making and the removal of a test's part of a shared server.
const partTimeout = time.Minute

// RabbitMQ returns a virtual host of the shared RabbitMQ, with management API, for this test alone. The host and all in it are deleted when
// the test is over, and connections to it are closed.
func RabbitMQ(t testing.TB) *RabbitServer {
	t.Helper()
	server, err := sharedRabbit()
	return lend(t, server, err, (*RabbitServer).vhost)
}

// Redis returns a database of the shared Redis for this test alone, empty, and emptied when the test is over. What Redis has once for all its
// databases, such as publish and subscribe, is not divided.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	server, err := sharedRedis()
	return lend(t, server, err, (*RedisServer).database)
}

// MySQL returns a database of the shared MariaDB or MySQL for this test alone, empty, and dropped when the test is over.
func MySQL(t testing.TB) *MySQLServer {
	t.Helper()
	server, err := sharedMySQL()
	return lend(t, server, err, (*MySQLServer).database)
}

// Set is one server of each kind.
type Set struct {
	RabbitMQ *RabbitServer
	Redis    *RedisServer
	MySQL    *MySQLServer
}

// All returns what RabbitMQ, Redis and MySQL return. Those of the shared servers that do not run yet are started at the same time.
func All(t testing.TB) Set {
	t.Helper()
	var wait sync.WaitGroup
	// Only started here: a test may be failed and skipped from its own goroutine alone. The failures are kept for the calls below.
	wait.Go(func() { _, _ = sharedRabbit() })
	wait.Go(func() { _, _ = sharedRedis() })
	wait.Go(func() { _, _ = sharedMySQL() })
	wait.Wait()
	return Set{RabbitMQ: RabbitMQ(t), Redis: Redis(t), MySQL: MySQL(t)}
}

// NewRabbitMQ starts a RabbitMQ that this test may kill, pause and restart, and closes it when the test is over. It takes 4 to 5 s.
func NewRabbitMQ(t testing.TB, o RabbitOptions) *RabbitServer {
	t.Helper()
	return own(t, rabbitProduct(), o, StartRabbitMQ)
}

// NewRabbitCluster starts a cluster of n RabbitMQ nodes that this test may kill, pause and restart, and closes it when the test is over. Three nodes
// take about 12 s.
func NewRabbitCluster(t testing.TB, n int, o RabbitOptions) *RabbitCluster {
	t.Helper()
	return own(t, rabbitProduct(), o, func(ctx context.Context, o RabbitOptions) (*RabbitCluster, error) {
		return StartRabbitCluster(ctx, n, o)
	})
}

// NewRedis starts a Redis that this test may kill, pause and restart, and closes it when the test is over. It takes 0.1 s.
func NewRedis(t testing.TB, o RedisOptions) *RedisServer {
	t.Helper()
	return own(t, redisProduct(), o, StartRedis)
}

// NewMySQL starts a MariaDB or MySQL that this test may kill, pause and restart, and closes it when the test is over. It takes 2 s.
func NewMySQL(t testing.TB, o MySQLOptions) *MySQLServer {
	t.Helper()
	return own(t, mysqlProduct(), o, StartMySQL)
}

func sharedRabbit() (*RabbitServer, error) {
	return shared.rabbit.get(externalRabbit, func(ctx context.Context) (*RabbitServer, error) {
		return StartRabbitMQ(ctx, RabbitOptions{Management: true})
	})
}

func sharedRedis() (*RedisServer, error) {
	return shared.redis.get(externalRedis, func(ctx context.Context) (*RedisServer, error) { return StartRedis(ctx, RedisOptions{}) })
}

func sharedMySQL() (*MySQLServer, error) {
	return shared.mysql.get(externalMySQL, func(ctx context.Context) (*MySQLServer, error) { return StartMySQL(ctx, MySQLOptions{}) })
}

// lend gives a test its part of a shared server until the test is over.
func lend[S any](t testing.TB, server S, err error, divide func(S, context.Context) (S, func(context.Context) error, error)) S {
	t.Helper()
	require(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), partTimeout)
	defer cancel()
	part, release, err := divide(server, ctx)
	require(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
		defer cancel()
		if err := release(ctx); err != nil {
			t.Errorf("give back the test's part of a shared server: %v", err)
		}
	})
	return part
}

// private is what belongs to one test.
type private interface {
	Logs() string
	Close() error
}

// own starts a server, or a cluster, for a test.
func own[S private, O any](t testing.TB, p product, o O, start func(context.Context, O) (S, error)) S {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	server, err := start(ctx, o)
	if errors.Is(err, ErrMissing) && os.Getenv(p.variable) != "" {
		t.Skipf("this test kills or pauses its server, which must not be the one in %s: %v", p.variable, err)
	}
	require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:%s", p.name, server.Logs())
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// require ends a test that has no server: by a skip when the program is missing on a developer's machine, by a failure everywhere else.
func require(t testing.TB, err error) {
	t.Helper()
	switch ci, _ := strconv.ParseBool(os.Getenv("CI")); {
	case err == nil:
	case errors.Is(err, ErrMissing) && !ci:
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}
