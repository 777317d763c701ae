package dapr_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// mysqlBehaviours are those of Dapr's table in MySQL.
func mysqlBehaviours() []behaviour {
	path := stateOf + "mysql"
	save := func(s *side, key, value, more string) string {
		return s.code("POST", path, `[{"key":"`+key+`","value":`+value+more+`}]`)
	}
	read := func(s *side, key string) string { _, _, body := s.exchange("GET", path+"/"+key, ""); return body }
	return []behaviour{
		{name: "numbers keep their digits (MySQL)", facade: "[9007199254740993,3.141592653589793]", dapr: "[9007199254740992,3.141592653589793]",
			why: "better: no digit is lost", do: func(s *side) string {
				save(s, "digits", "[9007199254740993,3.141592653589793]", "")
				return read(s, "digits")
			}},
		{name: "the order of members (MariaDB)", facade: `{"b":1,"a":{"d":2,"c":3}}`, dapr: `{"a":{"c":3,"d":2},"b":1}`,
			why: "better: as they were written; on MySQL 8 the server orders them for both", do: func(s *side) string {
				save(s, "order", `{"b":1,"a":{"d":2,"c":3}}`, "")
				return read(s, "order")
			}},
		{name: "a save with an ETag of a key that is absent (MySQL)", facade: "409 ERR_STATE_SAVE", do: func(s *side) string {
			return save(s, "absent", "1", `,"etag":"00000000-0000-4000-8000-000000000000"`)
		}},
		{name: "the ETag that a key has is taken, a stale one is not (MySQL)", facade: "204, 409 ERR_STATE_SAVE", do: func(s *side) string {
			save(s, "tagged", "1", "")
			etag := `,"etag":"` + s.etag("mysql", "tagged") + `"`
			return save(s, "tagged", "2", etag) + ", " + save(s, "tagged", "3", etag)
		}},
		{name: "first-write without an ETag of a key that exists (MySQL)", facade: "204, 409 ERR_STATE_SAVE", do: func(s *side) string {
			const first = `,"options":{"concurrency":"first-write"}`
			return save(s, "first", "1", first) + ", " + save(s, "first", "2", first)
		}},
		{name: "a delete with an ETag of a key that is absent (MySQL)", facade: "409 ERR_STATE_DELETE", do: func(s *side) string {
			return s.code("DELETE", path+"/never", "", "If-Match", "77")
		}},
		{name: "a transaction with a stale ETag (MySQL): its answer, and what became of its other key", facade: "409 ERR_STATE_TRANSACTION, 1",
			dapr: "500 ERR_STATE_TRANSACTION, 1", why: "better: the status tells a conflict from a failure", do: func(s *side) string {
				save(s, "u1", "1", "")
				save(s, "u2", "1", "")
				return s.code("POST", path+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"u1","value":2}},{"operation":"upsert","request":{"key":"u2","value":2,"etag":"77"}}]}`) +
					", " + read(s, "u1")
			}},
		{name: "keys that differ in case alone (MySQL)", facade: "1, 2", dapr: "2, 2", why: "the table is compared as the server's default says, where Dapr made it; here each made its own",
			do: func(s *side) string {
				save(s, "case", "1", "")
				save(s, "CASE", "2", "")
				return read(s, "case") + ", " + read(s, "CASE")
			}},
	}
}

// streamBehaviours are those of Redis Streams that are not the bus's own.
func streamBehaviours() []behaviour {
	return []behaviour{
		{name: "RETRY, once (Redis): how often it comes", facade: "2", do: func(s *side) string {
			s.call("POST", publish+"streams/plain", `{"mark":"stream-once","answer":"RETRY","once":true}`, "Content-Type", asJSON)
			return fmt.Sprint(len(s.app.deliveries("/on/stream", "stream-once", 2, wait)))
		}},
		{name: "an answer 500, once (Redis): how often it comes", facade: "2", do: func(s *side) string {
			s.call("POST", publish+"streams/plain", `{"mark":"stream-fails","status":500,"once":true}`, "Content-Type", asJSON)
			return fmt.Sprint(len(s.app.deliveries("/on/stream", "stream-fails", 2, wait)))
		}},
		{name: "an event in JSON (Redis)", facade: `"plain" "streams" {"mark":"on-a-stream","n":9007199254740993}`, do: func(s *side) string {
			e := s.sent("streams/plain", "/on/stream", "on-a-stream", asJSON, `{"mark":"on-a-stream","n":9007199254740993}`)
			return strings.TrimSpace(members(e, "topic", "pubsubname", "data"))
		}},
	}
}

// A message that the broker refuses, here because a queue is full, daprd calls published, with publisherConfirm too. A native publisher of the shared topic
// tries until its deadline, and says that it was not confirmed.
func TestRefusedByTheBroker(t *testing.T) {
	server := servers.RabbitMQ(t)
	conn, err := amqp.Dial(server.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDeclare("full", amqp.ExchangeFanout, true, false, false, false, nil))
	_, err = ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("full", "", "full", false, nil))

	s := newDaprd(t, []string{lossless(server)}, newApp(t, "[]"))
	for range 3 {
		require.Equal(t, "204", s.call("POST", publish+"broker/full", `{"a":1}`, "Content-Type", asJSON))
	}
	queue, err := ch.QueueDeclarePassive("full", true, false, false, false, nil)
	require.NoError(t, err)
	require.Equal(t, 1, queue.Messages, "two of three that were said to be published are nowhere")

	inner, err := rabbitbus.New(rabbitbus.Config{URLs: []string{server.URL}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = inner.Close(context.Background()) })
	shared, err := daprtopics.New(inner, daprtopics.Config{Topics: map[string]daprtopics.Topic{"full": {Publish: true}}})
	require.NoError(t, err)
	require.NoError(t, shared.Publish(t.Context(), &bus.Message{RoutingKey: "other", ID: "0", Body: []byte(`{}`)})) // until there is a connection
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.ErrorIs(t, shared.Publish(ctx, &bus.Message{RoutingKey: "full", ID: "1", Body: []byte(`{"a":1}`)}), bus.ErrNotConfirmed)
}
