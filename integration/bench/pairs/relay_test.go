package pairs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/services/relay"
)

const (
	relayed        = 10_000 // events, of so many streams in turn
	relayedStreams = 1000
	relayWindow    = 256 // that are under way at once
)

// BenchmarkRelay publishes a category of a log on MySQL to RabbitMQ, from its beginning until the last event is confirmed. The raw side selects pages, publishes
// what is in them as it comes, and waits for the confirmations in order. It enters no position, has no lease, and waits for no stream.
func BenchmarkRelay(b *testing.B) {
	database, broking := servers.NewMySQL(b, servers.MySQLOptions{}), servers.NewRabbitMQ(b, servers.RabbitOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: database.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close()) })
	events, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(b, err)
	for n := 0; n < relayed; n += relayedStreams {
		var appends []eventstore.Append
		for s := range relayedStreams {
			data, err := json.Marshal(newWritten(n + s))
			require.NoError(b, err)
			appends = append(appends, eventstore.Append{Stream: eventstore.StreamID{Category: "relayed", ID: strconv.Itoa(s)}, Expected: eventstore.Any,
				Events: []eventstore.Event{{Type: "written", Data: data}}})
		}
		_, err := events.AppendAll(b.Context(), appends...)
		require.NoError(b, err)
	}
	r := &broker{url: broking.URL, channel: dial(b, broking.URL)}
	declare(b, broking.URL)
	name := fmt.Sprintf("publish a category of %d events/1_relay", relayed)
	compare(b, name, r.relay(rawRelay(b, openMySQL(b, database.DSN), broking.URL)), r.relay(busRelay(b, events, broking.URL)))
}

// relay measures what publishes the category, and requires that all of it is in the queue then.
func (r *broker) relay(publish func(ctx context.Context) error) func(b *testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r.empty(b)
			b.StartTimer()
			require.NoError(b, publish(b.Context()))
			b.StopTimer()
			require.Equal(b, relayed, r.waiting(b))
			b.StartTimer()
		}
		r.empty(b)
	}
}

func rawRelay(b *testing.B, db *sql.DB, url string) func(ctx context.Context) error {
	channel := dial(b, url)
	require.NoError(b, channel.Confirm(false))
	page := prepare(b, db, "SELECT position, stream, event_id, data FROM events FORCE INDEX (events_category) WHERE category = 'relayed' AND position > ? ORDER BY position LIMIT 512")
	return func(ctx context.Context) error {
		var underWay []*amqp.DeferredConfirmation
		await := func(most int) error {
			for len(underWay) > most {
				confirmed, err := underWay[0].WaitContext(ctx)
				if err == nil && !confirmed {
					err = errNotConfirmed
				}
				if err != nil {
					return err
				}
				underWay = underWay[1:]
			}
			return nil
		}
		send := func(id uuid.UUID, stream string, data []byte) error {
			c, err := channel.PublishWithDeferredConfirmWithContext(ctx, "bannou", topic, false, false, amqp.Publishing{
				Headers:     amqp.Table{"_watermill_message_uuid": id.String(), "partition-key": stream},
				ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: id.String(), Timestamp: time.Now(), Body: data,
			})
			underWay = append(underWay, c)
			return err
		}
		sendPage := func(after int64) (last int64, err error) {
			last = after
			rows, err := page.QueryContext(ctx, after)
			if err != nil {
				return last, err
			}
			defer func() { err = errors.Join(err, rows.Close()) }()
			for rows.Next() {
				var id, data []byte
				var stream string
				if err := rows.Scan(&last, &stream, &id, &data); err != nil {
					return last, err
				}
				if err := errors.Join(send(uuid.UUID(id), stream, data), await(relayWindow-1)); err != nil {
					return last, err
				}
			}
			return last, rows.Err()
		}
		for position, more := int64(0), true; more; {
			last, err := sendPage(position)
			if err != nil {
				return err
			}
			position, more = last, last > position
		}
		return await(0)
	}
}

func busRelay(b *testing.B, events *eventstore.Store, url string) func(ctx context.Context) error {
	x := newBus(b, url)
	head, err := events.Head(b.Context())
	require.NoError(b, err)
	return func(ctx context.Context) error {
		name := "r-" + uuid.NewString()
		l, err := relay.NewLog(relay.LogConfig{Store: events, Bus: x, Name: name, Category: "relayed", InFlight: relayWindow,
			Messages: func(_ context.Context, e eventstore.Recorded) ([]relay.Message, error) {
				return []relay.Message{{Topic: topic, Body: e.Data}}, nil
			}})
		if err != nil {
			return err
		}
		if err := l.Start(ctx); err != nil {
			return err
		}
		for done := false; !done; {
			marks, err := events.Marks(ctx, name)
			if err != nil {
				return err
			}
			done = len(marks) == 1 && marks[0].Position == head
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return l.Stop(ctx)
	}
}
