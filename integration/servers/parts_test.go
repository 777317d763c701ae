package servers_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// TestTestsDoNotMeet gives two tests parts of the same servers; both write under the same names.
func TestTestsDoNotMeet(t *testing.T) {
	for range 2 {
		t.Run("test", func(t *testing.T) {
			t.Parallel()
			all := servers.All(t)

			queue, err := connect(t, all.RabbitMQ.URL).QueueDeclare("same", true, false, false, false, nil)
			require.NoError(t, err)
			require.Zero(t, queue.Messages)
			require.NoError(t, connect(t, all.RabbitMQ.URL).ExchangeDeclare("same", "topic", true, false, false, false, nil))

			fresh, err := redisClient(t, all.Redis.URL).SetNX(t.Context(), "same", "value", 0).Result()
			require.NoError(t, err)
			require.True(t, fresh, "another test's key")

			_, err = openMySQL(t, all.MySQL.DSN).ExecContext(t.Context(), "CREATE TABLE same (id INT)")
			require.NoError(t, err)

			// Nobody may take the servers from the others.
			require.ErrorIs(t, all.RabbitMQ.Kill(), servers.ErrShared)
			require.ErrorIs(t, all.Redis.Pause(), servers.ErrShared)
			require.ErrorIs(t, all.MySQL.Stop(t.Context()), servers.ErrShared)
			_, err = all.RabbitMQ.Ctl(t.Context(), "stop_app")
			require.ErrorIs(t, err, servers.ErrShared)
			require.NoError(t, all.MySQL.Close())
			require.NoError(t, all.MySQL.Probe(within(t, 5*time.Second)), "Close of a part has closed the server")
		})
	}
}

// TestPartIsGoneWithItsTest would fill a shared server, and with the same names break a second run on a server that outlives the first.
func TestPartIsGoneWithItsTest(t *testing.T) {
	var used servers.Set
	t.Run("user", func(t *testing.T) {
		used = servers.All(t)
		require.NoError(t, redisClient(t, used.Redis.URL).Set(t.Context(), "key", "value", 0).Err())
	})
	require.Error(t, used.RabbitMQ.Probe(within(t, 5*time.Second)), "the virtual host is still there")
	require.Error(t, openMySQL(t, used.MySQL.DSN).PingContext(t.Context()), "the database is still there")
	require.Zero(t, redisClient(t, used.Redis.URL).DBSize(t.Context()).Val(), "the keys are still there")
	require.Equal(t, used.Redis.DB, servers.Redis(t).DB, "the database was not given back")
}

// TestExternalServers runs the tests above in another process, on servers that its environment names.
func TestExternalServers(t *testing.T) {
	rabbit := servers.NewRabbitMQ(t, servers.RabbitOptions{Management: true})
	cache := servers.NewRedis(t, servers.RedisOptions{})
	database := servers.NewMySQL(t, servers.MySQLOptions{})

	theirs := redisClient(t, strings.TrimSuffix(cache.URL, "/0")+"/1")
	require.NoError(t, theirs.Set(t.Context(), "key", "of somebody", 0).Err())

	environment := []string{
		servers.RabbitMQURL + "=" + rabbit.URL, servers.RabbitMQAPI + "=" + rabbit.API, servers.RedisURL + "=" + cache.URL, servers.MySQLDSN + "=" + database.DSN,
	}
	out, err := child(t, "TestExternalUse", append(environment, "SERVERS_TEST_EXTERNAL="+cache.Addr)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestExternalUse")
	require.Equal(t, "of somebody", theirs.Get(t.Context(), "key").Val())
	require.Equal(t, int64(1), theirs.DBSize(t.Context()).Val())
	require.NoError(t, rabbit.Probe(within(t, 5*time.Second)), "the tests have stopped a server that is not theirs")

	environment = append(environment, servers.RedisURL+"=no s3cret@ URL", "SERVERS_TEST_EXTERNAL=nowhere")
	out, err = child(t, "TestExternalUse", environment...).CombinedOutput()
	require.Error(t, err, "a wrong address is a failure, not a skip")
	require.Contains(t, string(out), "BANNOU_TEST_REDIS_URL is not the URL of a Redis")
	require.NotContains(t, string(out), "s3cret", "the password is in the output")
}

// TestExternalUse is the other process.
func TestExternalUse(t *testing.T) {
	addr := os.Getenv("SERVERS_TEST_EXTERNAL")
	if addr == "" {
		t.Skip("runs as a child of TestExternalServers")
	}
	all := servers.All(t)
	require.Equal(t, addr, all.Redis.Addr)
	require.NotEqual(t, 1, all.Redis.DB, "a database in use was taken")
	require.NoError(t, redisClient(t, all.Redis.URL).Set(t.Context(), "key", "ours", 0).Err())
	connect(t, all.RabbitMQ.URL)
	require.NoError(t, openMySQL(t, all.MySQL.DSN).PingContext(t.Context()))
	for _, err := range []error{all.RabbitMQ.Kill(), all.Redis.Restart(t.Context()), all.MySQL.Pause()} {
		require.ErrorIs(t, err, servers.ErrExternal)
	}
	require.NoError(t, servers.NewRedis(t, servers.RedisOptions{}).Kill(), "a private one is not external")
}
