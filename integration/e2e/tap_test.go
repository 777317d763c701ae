package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A tap made on the command line copies what is published to an exchange of RabbitMQ that a plain AMQP program reads, goes
// on after its node was killed, with what came meanwhile, and ends when it is deleted.
func TestTapOnRabbitMQ(t *testing.T) {
	args := append(quick(), append(realServers(t), "--services", "messaging")...)
	publisher := startNode(t, append(args, "--app-id", "publisher")...)
	tapper := startNode(t, append(args, "--app-id", "tapper")...)
	topic := topic("tapped")
	exchange := "audit-" + strings.TrimPrefix(topic, "story.")

	out, errs, code := run(t, "tap", "create", topic, exchange, "--durable", "-o", "json", "--node", tapper.url)
	require.Equal(t, 0, code, errs)
	var created struct{ TapID string }
	require.NoError(t, json.Unmarshal([]byte(out), &created))
	copies := plainReader(t, args[slices.Index(args, "--messaging-rabbitmq-urls")+1], exchange)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	publish := func(n int) string {
		return direct(publisher.url).must(t, "messaging/publish", object{"topic": topic, "payload": object{"n": n}, "options": object{
			"priority": 7, "correlationId": "talk", "headers": object{"tenant": "blue", "traceparent": trace}, "partitionKey": "k"}})["messageId"].(string)
	}

	id := publish(1)
	got := arrival(t, copies)
	require.Equal(t, exchange, got.Exchange)
	require.Equal(t, topic, got.RoutingKey)
	require.Equal(t, id, got.MessageId)
	require.Equal(t, "application/json", got.ContentType)
	require.Equal(t, "talk", got.CorrelationId)
	require.EqualValues(t, 7, got.Priority)
	require.Equal(t, amqp.Persistent, got.DeliveryMode)
	require.Equal(t, "blue", got.Headers["tenant"])
	require.Equal(t, "k", got.Headers["partition-key"])
	require.Equal(t, "publisher", got.Headers["source-service"])
	require.Contains(t, got.Headers["traceparent"], "0af7651916cd43dd8448eb211c80319c")
	require.Contains(t, string(got.Body), `"n":1`)

	tapper.kill()
	id = publish(2)
	tapper = startNode(t, append(args, "--app-id", "tapper")...)
	for copied := ""; copied != id; { // the first may come again: it was not acknowledged when the node was killed
		copied = arrival(t, copies).MessageId
	}

	out, errs, code = run(t, "tap", "list", "--node", tapper.url)
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, created.TapID)
	require.Contains(t, out, exchange)
	out, errs, code = run(t, "tap", "delete", created.TapID, "--node", tapper.url)
	require.Equal(t, 0, code, errs)
	require.Equal(t, "deleted\n", out)
	status, _ := post(t, publisher.url+"/messaging/publish", object{"topic": topic, "payload": object{}, "options": object{"mandatory": true}})
	require.Equal(t, 422, status, "the tap's queue is gone")
	_, errs, code = run(t, "tap", "delete", created.TapID, "--node", tapper.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "there is no tap")
	_, errs, code = run(t, "tap", "create", "#", "bannou", "--node", tapper.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "choose another")
}

// A tap on Redis copies to the other exchange's stream, which any program with a Redis client reads, until it is deleted.
func TestTapOnRedis(t *testing.T) {
	server := servers.Redis(t)
	n := startPlain(t, append(quick(), "--messaging-backend", "redis", "--messaging-redis-url", server.URL)...) // copies are counted
	topic := topic("tapped")
	exchange := "audit-" + strings.TrimPrefix(topic, "story.")
	out, errs, code := run(t, "tap", "create", topic, exchange, "--durable", "-o", "json", "--node", n.url)
	require.Equal(t, 0, code, errs)
	var created struct{ TapID string }
	require.NoError(t, json.Unmarshal([]byte(out), &created))
	id := direct(n.url).must(t, "messaging/publish", object{"topic": topic, "payload": object{"n": 1}})["messageId"]

	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	copies, err := client.XRead(t.Context(), &redis.XReadArgs{Streams: []string{"bannou:{" + exchange + "}:exchange", "0"}, Block: 15 * time.Second}).Result()
	require.NoError(t, err)
	require.Len(t, copies[0].Messages, 1)
	require.Equal(t, id, copies[0].Messages[0].Values["_watermill_message_uuid"])
	require.Contains(t, copies[0].Messages[0].Values["payload"], `"n":1`)

	out, errs, code = run(t, "tap", "delete", created.TapID, "--node", n.url)
	require.Equal(t, 0, code, errs)
	require.Equal(t, "deleted\n", out)
	status, _ := post(t, n.url+"/messaging/publish", object{"topic": topic, "payload": object{}, "options": object{"mandatory": true}})
	require.Equal(t, 422, status, "the tap's queue is gone")
}

// plainReader is another program, which knows the exchange and AMQP.
func plainReader(t *testing.T, url, exchange string) <-chan amqp.Delivery {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDeclare(exchange, amqp.ExchangeTopic, true, false, false, false, nil))
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind(q.Name, "#", exchange, false, nil))
	deliveries, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	require.NoError(t, err)
	return deliveries
}

func arrival(t *testing.T, copies <-chan amqp.Delivery) amqp.Delivery {
	t.Helper()
	select {
	case d := <-copies:
		return d
	case <-time.After(patience):
		t.Fatalf("no copy came in %s", patience)
		return amqp.Delivery{}
	}
}
