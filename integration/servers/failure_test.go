package servers_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/servers"
)

func TestFailedStartShowsItsLog(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	starts := map[string]struct {
		start func(context.Context) error
		want  string
	}{
		"RabbitMQ": {func(ctx context.Context) error {
			_, err := servers.StartRabbitMQ(ctx, servers.RabbitOptions{Config: "no_such_setting = 1"})
			return err
		}, "no_such_setting"},
		"Redis": {func(ctx context.Context) error {
			_, err := servers.StartRedis(ctx, servers.RedisOptions{Args: []string{"--no-such-setting", "1"}})
			return err
		}, "no-such-setting"},
		"MySQL": {func(ctx context.Context) error {
			_, err := servers.StartMySQL(ctx, servers.MySQLOptions{Args: []string{"--no-such-setting"}})
			return err
		}, "no-such-setting"},
	}
	for name, s := range starts {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			err := s.start(within(t, 2*time.Minute))
			require.ErrorContains(t, err, s.want)
			require.ErrorContains(t, err, "start "+name)
			require.Less(t, time.Since(begin), time.Minute, "it waited for a server that had ended")
		})
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, os.Getenv("TMPDIR"))) }, patience, 10*time.Millisecond)
}

func TestStartKeepsToItsContext(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	begin := time.Now()
	_, err := servers.StartRabbitMQ(within(t, time.Second), servers.RabbitOptions{})
	skipMissing(t, err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 20*time.Second, "it waited for the broker to answer, or to end")
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, temporary)) }, patience, 10*time.Millisecond)
}

func TestServersThatEndedSayTo(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	client := redisClient(t, server.URL)
	require.NoError(t, client.Set(t.Context(), "key", "kept", 0).Err())
	client.Shutdown(t.Context()) // it ends by itself; the answer is a lost connection
	require.Eventually(t, func() bool { return server.Pause() != nil }, patience, 10*time.Millisecond)
	require.ErrorIs(t, server.Kill(), servers.ErrNotRunning)
	require.NoError(t, server.Restart(within(t, 10*time.Second)))
	require.Equal(t, "kept", redisClient(t, server.URL).Get(t.Context(), "key").Val())

	require.Contains(t, server.Logs(), "Ready to accept connections")
	require.NoError(t, server.Close())
	require.NoError(t, server.Close())
	require.ErrorIs(t, server.Restart(t.Context()), servers.ErrClosed)
}

func TestVolatileRedisForgets(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
	require.NoError(t, redisClient(t, server.URL).Set(t.Context(), "key", "value", 0).Err())
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(within(t, 10*time.Second)))
	require.Zero(t, redisClient(t, server.URL).DBSize(t.Context()).Val())
}

// TestCtlReachesTheBroker uses it as fault tests do: a memory alarm blocks publishers.
func TestCtlReachesTheBroker(t *testing.T) {
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	connection, err := amqp.Dial(broker.URL)
	require.NoError(t, err)
	defer connection.Close()
	blocked := connection.NotifyBlocked(make(chan amqp.Blocking, 1))
	channel, err := connection.Channel()
	require.NoError(t, err)

	_, err = broker.Ctl(t.Context(), "set_vm_memory_high_watermark", "0.00001")
	require.NoError(t, err)
	require.NoError(t, channel.PublishWithContext(t.Context(), "", "nowhere", false, false, amqp.Publishing{})) // the broker blocks those who publish
	select {
	case alarm := <-blocked:
		require.True(t, alarm.Active)
	case <-within(t, 10*time.Second).Done():
		t.Fatal("the broker took no notice")
	}

	_, err = broker.Ctl(t.Context(), "no_such_command")
	require.ErrorContains(t, err, "no_such_command")
	require.NoError(t, broker.Kill())
	_, err = broker.Ctl(t.Context(), "status")
	require.ErrorIs(t, err, servers.ErrNotRunning)
}

// TestNoGoroutineStays lets users of the package check for goroutines of their own.
func TestNoGoroutineStays(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("user", func(t *testing.T) {
		servers.All(t)
		require.NoError(t, servers.NewRedis(t, servers.RedisOptions{}).Kill())
	})
}

func skipMissing(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) {
		t.Skip(err)
	}
}
