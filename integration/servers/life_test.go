package servers_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// subject is a private server with something durable to remember.
type subject struct {
	server *servers.Server
	write  func(t *testing.T)
	check  func(t *testing.T)
}

func privateServers() map[string]func(t *testing.T) subject {
	return map[string]func(t *testing.T) subject{"RabbitMQ": privateRabbit, "Redis": privateRedis, "MySQL": privateMySQL}
}

func privateRabbit(t *testing.T) subject {
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	return subject{
		server: broker.Server,
		write: func(t *testing.T) {
			channel := connect(t, broker.URL)
			_, err := channel.QueueDeclare("durable", true, false, false, false, nil)
			require.NoError(t, err)
			confirmation, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "", "durable", true, false,
				amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("kept")})
			require.NoError(t, err)
			acknowledged, err := confirmation.WaitContext(within(t, 10*time.Second))
			require.NoError(t, err)
			require.True(t, acknowledged)
		},
		check: func(t *testing.T) {
			message, found, err := connect(t, broker.URL).Get("durable", false) // not acknowledged: it is there the next time
			require.NoError(t, err)
			require.True(t, found, "the persistent message is gone")
			require.Equal(t, "kept", string(message.Body))
		},
	}
}

func privateRedis(t *testing.T) subject {
	server := servers.NewRedis(t, servers.RedisOptions{})
	return subject{
		server: server.Server,
		write: func(t *testing.T) {
			require.NoError(t, redisClient(t, server.URL).Set(t.Context(), "key", "kept", 0).Err())
		},
		check: func(t *testing.T) {
			value, err := redisClient(t, server.URL).Get(t.Context(), "key").Result()
			require.NoError(t, err)
			require.Equal(t, "kept", value)
		},
	}
}

func privateMySQL(t *testing.T) subject {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	return subject{
		server: server.Server,
		write: func(t *testing.T) {
			db := openMySQL(t, server.DSN)
			_, err := db.ExecContext(t.Context(), "CREATE TABLE things (name VARCHAR(20))")
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), "INSERT INTO things VALUES ('kept')")
			require.NoError(t, err)
		},
		check: func(t *testing.T) {
			var name string
			require.NoError(t, openMySQL(t, server.DSN).QueryRowContext(t.Context(), "SELECT name FROM things").Scan(&name))
			require.Equal(t, "kept", name)
		},
	}
}

func TestKillPauseRestart(t *testing.T) {
	for name, start := range privateServers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.write(t)

			require.NoError(t, s.server.Kill())
			require.Error(t, s.server.Probe(within(t, time.Second)), "it still answers")
			require.ErrorIs(t, s.server.Kill(), servers.ErrNotRunning)
			require.ErrorIs(t, s.server.Resume(), servers.ErrNotRunning)
			require.NoError(t, s.server.Restart(within(t, time.Minute)))
			s.check(t)

			require.NoError(t, s.server.Pause())
			begin := time.Now()
			require.ErrorIs(t, s.server.Probe(within(t, 300*time.Millisecond)), context.DeadlineExceeded)
			require.Less(t, time.Since(begin), 2*time.Second, "the probe outlived its context")
			require.NoError(t, s.server.Resume())
			require.NoError(t, s.server.Probe(within(t, 10*time.Second)))

			require.NoError(t, s.server.Pause())
			require.NoError(t, s.server.Restart(within(t, time.Minute)), "a paused server can be stopped and started")
			s.check(t)
			require.NoError(t, s.server.Pause()) // and it can be closed, by the end of the test
		})
	}
}
