package pairs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/sagas"
)

// stepped is an event of a saga, in both directions.
type stepped struct {
	events.Base
	Number int `json:"number"`
}

func (*stepped) EventName() string { return "SteppedEvent" }

// travelled is the data of an instance.
type travelled struct {
	Number int    `json:"number"`
	Step   int    `json:"step"`
	Text   string `json:"text"`
}

const (
	steps       = 3
	sagaWorkers = 32
	sagaText    = 200 // bytes of data that an instance has besides
)

// BenchmarkSagas runs sagas of three steps to their end: a start, three commands with their answers, and an event at the end, all on RabbitMQ. The raw side
// does by hand what that takes: for each message a transaction with the id of the message, the instance, and the command; then the command is
// published and confirmed, its row deleted, and the message acknowledged, by 32 workers. In memory it has a map instead.
func BenchmarkSagas(b *testing.B) {
	rabbit, server := servers.NewRabbitMQ(b, servers.RabbitOptions{}), servers.NewMySQL(b, servers.MySQLOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close()) })
	db := openMySQL(b, server.DSN)
	for _, statement := range []string{
		"CREATE TABLE raw_inbox (id BINARY(16) PRIMARY KEY)",
		"CREATE TABLE raw_instances (id VARBINARY(255) PRIMARY KEY, version BIGINT NOT NULL, data LONGBLOB NOT NULL)",
		"CREATE TABLE raw_outbox (id BINARY(16) PRIMARY KEY, topic VARBINARY(255) NOT NULL, body LONGBLOB NOT NULL)",
	} {
		_, err := db.ExecContext(b.Context(), statement)
		require.NoError(b, err)
	}
	log, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(b, err)
	const name = "three steps to the end"
	compare(b, name+", log on MySQL", carried(rabbit.URL, rawSagas(keptInSQL(b, db))), carried(rabbit.URL, ourSagas(log)))
	compare(b, name+", log in memory", carried(rabbit.URL, rawSagas(keptInMemory())), carried(rabbit.URL, ourSagas(memoryevents.New(eventstore.Config{}))))
}

// carried measures instances until all of them have ended. What runs them takes the events of prefix until stop.
func carried(url string, run func(b *testing.B, url, prefix string) (stop func())) func(b *testing.B) {
	return func(b *testing.B) {
		prefix := "s" + strings.ReplaceAll(uuid.NewString(), "-", "") + "."
		ended := newTally(b.N)
		services := serveSteps(b, url, prefix, ended)
		stop := run(b, url, prefix)
		channel := dial(b, url)
		require.NoError(b, channel.Confirm(false))
		ctx := b.Context()
		b.ReportAllocs()
		b.ResetTimer()
		together(b, sagaWorkers, b.N, func(_, number int) error {
			confirmation, err := publishStep(ctx, channel, prefix+"asked", number)
			if err != nil {
				return err
			}
			_, err = confirmation.WaitContext(ctx)
			return err
		})
		ended.wait(b)
		b.StopTimer()
		stop()
		services()
		ended.check(b)
	}
}

func publishStep(ctx context.Context, channel *amqp.Channel, topic string, number int) (*amqp.DeferredConfirmation, error) {
	e := &stepped{Number: number}
	id, at := e.Stamp(uuid.NewString(), time.Now())
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return channel.PublishWithDeferredConfirmWithContext(ctx, "bannou", topic, false, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: id, Timestamp: at, Type: e.EventName(), Body: body,
	})
}

// consumeRaw hands deliveries of some topics to so many workers, and acknowledges what they did.
func consumeRaw(b *testing.B, url, queue string, topics []string, workers int, handle func(topic, id string, e *stepped) error) (stop func()) {
	channel := dial(b, url)
	require.NoError(b, channel.ExchangeDeclare("bannou", "topic", true, false, false, false, nil))
	require.NoError(b, channel.Qos(prefetch, 0, false))
	_, err := channel.QueueDeclare(queue, true, false, false, false, nil)
	require.NoError(b, err)
	for _, topic := range topics {
		require.NoError(b, channel.QueueBind(queue, topic, "bannou", false, nil))
	}
	deliveries, err := channel.ConsumeWithContext(context.Background(), queue, queue, false, false, false, false, nil)
	require.NoError(b, err)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for d := range deliveries {
				var e stepped
				if err := errors.Join(json.Unmarshal(d.Body, &e), handle(d.RoutingKey, d.MessageId, &e), d.Ack(false)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	return func() {
		require.NoError(b, channel.Cancel(queue, false))
		work.Wait()
		_, err := channel.QueueDelete(queue, false, false, false)
		require.NoError(b, err)
	}
}

// serveSteps are the services that answer commands, the same for both sides, and count what has ended.
func serveSteps(b *testing.B, url, prefix string, ended *tally) (stop func()) {
	channel := dial(b, url)
	topics := []string{prefix + "ended"}
	for step := range steps {
		topics = append(topics, prefix+"do-"+strconv.Itoa(step+1))
	}
	return consumeRaw(b, url, prefix+"services", topics, 8, func(topic, _ string, e *stepped) error {
		step, isCommand := strings.CutPrefix(topic, prefix+"do-")
		if !isCommand {
			ended.add(e.Number)
			return nil
		}
		_, err := publishStep(context.Background(), channel, prefix+"done-"+step, e.Number)
		return err
	})
}

// A keeper enters what follows from a message, the command included, and forgets the command when it was published.
type keeper struct {
	enter  func(message string, number int, command uuid.UUID, topic string, body []byte) error
	forget func(command uuid.UUID) error
}

func rawSagas(k keeper) func(b *testing.B, url, prefix string) func() {
	return func(b *testing.B, url, prefix string) func() {
		channel := dial(b, url)
		require.NoError(b, channel.Confirm(false))
		topics := []string{prefix + "asked"}
		for step := range steps {
			topics = append(topics, prefix+"done-"+strconv.Itoa(step+1))
		}
		return consumeRaw(b, url, prefix+"saga", topics, sagaWorkers, func(topic, id string, e *stepped) error {
			next := prefix + "do-1"
			if step, err := strconv.Atoi(strings.TrimPrefix(topic, prefix+"done-")); err == nil {
				if next = prefix + "do-" + strconv.Itoa(step+1); step == steps {
					next = prefix + "ended"
				}
			}
			command := uuid.New()
			out := &stepped{Number: e.Number}
			_, at := out.Stamp(command.String(), time.Now())
			body, err := json.Marshal(out)
			if err != nil {
				return err
			}
			if err := k.enter(id, e.Number, command, next, body); err != nil {
				return err
			}
			confirmation, err := channel.PublishWithDeferredConfirmWithContext(context.Background(), "bannou", next, false, false, amqp.Publishing{
				ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: command.String(), Timestamp: at, Type: out.EventName(), Body: body,
			})
			if err != nil {
				return err
			}
			confirmation.Wait()
			return k.forget(command)
		})
	}
}

// keptInSQL has a transaction for each message.
func keptInSQL(b *testing.B, db *sql.DB) keeper {
	run := uuid.NewString()
	seen := prepare(b, db, "INSERT INTO raw_inbox (id) VALUES (?)")
	read := prepare(b, db, "SELECT version, data FROM raw_instances WHERE id = ? FOR UPDATE")
	write := prepare(b, db, "INSERT INTO raw_instances (id, version, data) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE version = VALUES(version), data = VALUES(data)")
	owe := prepare(b, db, "INSERT INTO raw_outbox (id, topic, body) VALUES (?, ?, ?)")
	forget := prepare(b, db, "DELETE FROM raw_outbox WHERE id = ?")
	enter := func(message string, number int, command uuid.UUID, topic string, body []byte) error {
		ctx := context.Background()
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		id := uuid.MustParse(message)
		if _, err := tx.StmtContext(ctx, seen).ExecContext(ctx, id[:]); err != nil {
			return err
		}
		key := topic[:33] + run + strconv.Itoa(number)
		var version int64
		var data []byte
		if err := tx.StmtContext(ctx, read).QueryRowContext(ctx, key).Scan(&version, &data); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if data, err = gone(data, number); err != nil {
			return err
		}
		if _, err := tx.StmtContext(ctx, write).ExecContext(ctx, key, version+1, data); err != nil {
			return err
		}
		if _, err := tx.StmtContext(ctx, owe).ExecContext(ctx, command[:], topic, body); err != nil {
			return err
		}
		return tx.Commit()
	}
	return keeper{enter: enter, forget: func(command uuid.UUID) error {
		_, err := forget.ExecContext(context.Background(), command[:])
		return err
	}}
}

// gone is the data of an instance one step further.
func gone(data []byte, number int) ([]byte, error) {
	var t travelled
	if len(data) > 0 {
		if err := json.Unmarshal(data, &t); err != nil {
			return nil, err
		}
	}
	t.Number, t.Text = number, text[:sagaText]
	t.Step++
	return json.Marshal(t)
}

func keptInMemory() keeper {
	var mu sync.Mutex
	seen, instances := map[string]bool{}, map[string][]byte{}
	return keeper{forget: func(uuid.UUID) error { return nil }, enter: func(message string, number int, _ uuid.UUID, topic string, _ []byte) error {
		mu.Lock()
		defer mu.Unlock()
		key := topic[:33] + strconv.Itoa(number)
		if seen[message] {
			return fmt.Errorf("message %s came twice", message)
		}
		seen[message] = true
		data, err := gone(instances[key], number)
		instances[key] = data
		return err
	}}
}

// ourSagas is an engine.
func ourSagas(log *eventstore.Store) func(b *testing.B, url, prefix string) func() {
	return func(b *testing.B, url, prefix string) func() {
		driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}})
		require.NoError(b, err)
		require.Eventually(b, func() bool { return driver.Ready(b.Context()) == nil }, patience, time.Millisecond)
		x, err := bus.New(driver, bus.Config{PrefetchCount: prefetch})
		require.NoError(b, err)
		saga, err := threeSteps(prefix).Build()
		require.NoError(b, err)
		engine, err := sagas.New(sagas.Config{Store: log, Bus: x, Sagas: []*sagas.Saga{saga}})
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := engine.Run(ctx); err != nil {
				b.Error(err)
			}
		})
		stopBus := runBus(b, x)
		return func() {
			cancel()
			running.Wait()
			stopBus()
			require.NoError(b, errors.Join(x.Close(context.Background()), driver.Close(context.Background())))
		}
	}
}

// threeSteps is the saga, of a name of its own so that it begins where the log is empty for it.
func threeSteps(prefix string) sagas.Definition[travelled] {
	on := func(topic string) sagas.Topic[stepped] {
		return sagas.Correlated(prefix+topic, func(e *stepped) string { return strconv.Itoa(e.Number) })
	}
	publish := func(topic string) sagas.Command[travelled] {
		return sagas.Publish(prefix+topic, func(t *travelled) bus.Event { return &stepped{Number: t.Number} })
	}
	further := func(t *travelled, e *stepped) error {
		t.Number, t.Text = e.Number, text[:sagaText]
		t.Step++
		return nil
	}
	d := sagas.Definition[travelled]{Name: strings.TrimSuffix(prefix, "."), Start: []sagas.On[travelled]{sagas.When(on("asked"), "step-1", further)}}
	for step := 1; step <= steps; step++ {
		next := "ended"
		if step < steps {
			next = "step-" + strconv.Itoa(step+1)
		}
		n := strconv.Itoa(step)
		d.States = append(d.States, sagas.State[travelled]{Name: "step-" + n, Do: publish("do-" + n), Undo: publish("undo-" + n), On: []sagas.On[travelled]{
			sagas.When(on("done-"+n), next, further), sagas.After[travelled](time.Hour, sagas.Compensating, nil),
		}})
	}
	d.States = append(d.States, sagas.State[travelled]{Name: "ended", End: true, Do: publish("ended")})
	return d
}
