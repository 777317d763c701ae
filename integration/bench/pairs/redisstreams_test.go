package pairs

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// BenchmarkRedisStreams adds entries with the same fields on both sides, each caller waiting for its own answer. The raw
// client sends one command a round trip, over as many connections as it has by default.
func BenchmarkRedisStreams(b *testing.B) {
	server := servers.NewRedis(b, servers.RedisOptions{Fsync: "everysec"})
	options, err := redis.ParseURL(server.URL)
	require.NoError(b, err)
	client := redis.NewClient(options)
	b.Cleanup(func() { require.NoError(b, client.Close()) })
	compare(b, "publish confirmed/64_callers", addEntries(client, rawEntries(client)), addEntries(client, busEntries(b, server.URL)))
}

// addEntries measures confirmed messages; all of them are in the stream afterwards.
func addEntries(client *redis.Client, send publisher) func(b *testing.B) {
	return func(b *testing.B) {
		require.NoError(b, client.Del(b.Context(), topic).Err())
		ctx := b.Context()
		b.ReportAllocs()
		b.ResetTimer()
		together(b, 64, b.N, func(caller, number int) error {
			return send(ctx, &placed{Caller: caller, Number: number, Text: text})
		})
		b.StopTimer()
		require.EqualValues(b, b.N, client.XLen(ctx, topic).Val(), "confirmed messages in the stream")
		require.NoError(b, client.Del(ctx, topic).Err())
	}
}

func rawEntries(client *redis.Client) publisher {
	return func(ctx context.Context, e *placed) error {
		body, err := e.encode()
		if err != nil {
			return err
		}
		m := message.NewMessage(e.EventID, body)
		m.Metadata = message.Metadata{
			bus.HeaderSourceService: "bannou", "_bannou_routing_key": topic, "_bannou_type": e.EventName(), "_bannou_content_type": "application/json",
			"_bannou_timestamp": e.Timestamp.String(),
		}
		fields, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(topic, m)
		if err != nil {
			return err
		}
		return client.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: fields}).Err()
	}
}

func busEntries(b *testing.B, url string) publisher {
	driver, err := redisbus.New(redisbus.Config{URLs: []string{url}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close(context.Background())) })
	x, err := bus.New(driver, bus.Config{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, x.Close(context.Background())) })
	return func(ctx context.Context, e *placed) error {
		_, err := x.Publish(ctx, topic, e)
		return err
	}
}
