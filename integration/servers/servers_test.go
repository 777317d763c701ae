package servers_test

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// patience is how long anything may take that has to happen in the end, on a machine that is busy with other things.
const patience = time.Minute

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// TestAllStartTogether measures what the first test of every binary waits for.
func TestAllStartTogether(t *testing.T) {
	require.NoError(t, servers.Close()) // what tests before this one have started
	begin := time.Now()
	all := servers.All(t)
	t.Logf("RabbitMQ, Redis and MySQL answer after %v", time.Since(begin).Round(time.Millisecond))

	connect(t, all.RabbitMQ.URL)
	require.NoError(t, redisClient(t, all.Redis.URL).Set(t.Context(), "key", "value", 0).Err())
	_, err := openMySQL(t, all.MySQL.DSN).ExecContext(t.Context(), "CREATE TABLE things (id INT PRIMARY KEY)")
	require.NoError(t, err)
}

func connect(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = connection.Close() }) // a test may have killed the broker
	channel, err := connection.Channel()
	require.NoError(t, err)
	require.NoError(t, channel.Confirm(false))
	return channel
}

func redisClient(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	options.MaxRetries = -1
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func openMySQL(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
