package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/services/inbox"
)

const (
	relayStreams = 40
	relayWriters = 4
	brokerOutage = 2 * time.Minute // of a long run
)

// A relayFault is a harm that is done between a log and a handler.
type relayFault struct {
	name   string
	times  int // how often a long run does it; a quick one does it once
	relays int // how many there are; 0: two
	// easy is a twentieth of the load: the harm is long, and what gathers meanwhile is to be handled.
	easy bool
	harm func(ctx context.Context, r *relayRun) error
}

// What happens between a log and a handler. It compares no rates, and runs beside others, apart from those who count goroutines.
func TestRelay(t *testing.T) {
	t.Parallel()
	apart(t, 0, func(t *testing.T) {
		database, broker := servers.NewMySQL(t, servers.MySQLOptions{}), servers.NewRabbitMQ(t, servers.RabbitOptions{})
		for _, f := range relayFaults(database) {
			t.Run(f.name, func(t *testing.T) { endureRelay(t, database, broker, f) })
		}
	})
}

// The broker is away for so long that others are through meanwhile: it waits beside them.
func TestRelayOutage(t *testing.T) {
	if !*long {
		t.Skip("in a long run only, `make faults`")
	}
	t.Parallel()
	apart(t, 0, func(t *testing.T) {
		database, broker := servers.NewMySQL(t, servers.MySQLOptions{}), servers.NewRabbitMQ(t, servers.RabbitOptions{})
		endureRelay(t, database, broker, relayFault{name: fmt.Sprintf("broker killed, and away for %s", brokerOutage), times: 1, easy: true,
			harm: func(ctx context.Context, _ *relayRun) error {
				return errors.Join(broker.Kill(), faults.Pause(ctx, brokerOutage), broker.Restart(ctx))
			}})
	})
}

func relayFaults(database *servers.MySQLServer) []relayFault {
	all := []relayFault{
		{name: "leader killed", times: 2, harm: func(ctx context.Context, r *relayRun) error {
			leader, err := r.leader(ctx)
			if err != nil {
				return err
			}
			r.relays = r.relays[:len(r.relays)-1]
			return errors.Join(leader.kill(), r.startRelay(ctx))
		}},
		{name: "leader stopped (SIGSTOP) for four leases", times: 2, harm: func(ctx context.Context, r *relayRun) error {
			leader, err := r.leader(ctx)
			if err != nil {
				return err
			}
			return errors.Join(leader.cmd.Process.Signal(syscall.SIGSTOP), faults.Pause(ctx, 4*relayLease), leader.cmd.Process.Signal(syscall.SIGCONT))
		}},
		{name: "lease taken from a leader that works, so that two lead", times: 5, harm: func(ctx context.Context, r *relayRun) error {
			return takeLease(ctx, r.db, relayName)
		}},
		{name: "database killed", times: 1, harm: func(ctx context.Context, _ *relayRun) error {
			return errors.Join(database.Kill(), database.Restart(ctx))
		}},
	}
	if *long { // it is a matter of how many there are
		all = append(all, relayFault{name: "three more relays at once", times: 1, relays: 5, harm: func(context.Context, *relayRun) error { return nil }})
	}
	return all
}

// A relayRun is one fault's.
type relayRun struct {
	dsn, topic string
	broker     *servers.RabbitServer
	pause      time.Duration // of a writer, after each append
	store      *eventstore.Store
	db         *sql.DB
	relays     []*relayProcess
	known      []string // consumers that there have been

	appended, arrived, again atomic.Int64
	seen                     sync.Map // ids that have arrived
}

func endureRelay(t *testing.T, database *servers.MySQLServer, broker *servers.RabbitServer, f relayFault) {
	row := faults.RelayRow{Fault: f.name, Times: 1, Seed: *seed}
	if *long {
		row.Times = f.times
	}
	r := &relayRun{dsn: database.NewDatabase(t).DSN, topic: fmt.Sprintf("faults.r%d", time.Now().UnixNano()), broker: broker, pause: 15 * time.Millisecond}
	defer func() {
		for _, p := range r.relays {
			_ = p.kill() // those that were not ended
		}
		row.Failed = t.Failed()
		if f.easy {
			rows.Outages = append(rows.Outages, row)
		} else {
			rows.Relays = append(rows.Relays, row)
		}
		t.Logf("seed %d: %+v", *seed, row.RelayTotals)
	}()
	if f.easy {
		r.pause *= 20
	}
	r.open(t)
	for range max(f.relays, 2) {
		require.NoError(t, r.startRelay(within(t, patience)))
	}
	ctx, stop := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	for w := range relayWriters {
		writing.Go(func() { r.write(ctx, uint64(w)) })
	}
	end := sync.OnceFunc(func() { stop(); writing.Wait() })
	defer end()
	require.Eventually(t, func() bool { return r.handled() > 100 }, patience, pollPeriod, "events are handled")
	for range row.Times {
		require.NoError(t, f.harm(within(t, 2*patience+brokerOutage), r))
		begun, until := time.Now(), r.appended.Load()
		require.Eventually(t, func() bool { return r.handled() >= until }, 3*patience, pollPeriod, "what was appended is handled")
		row.Drained = max(row.Drained, time.Since(begun))
	}
	end()
	require.Eventually(t, func() bool {
		left, err := r.left()
		return err == nil && left == 0 && r.handled() >= r.appended.Load()
	}, patience, pollPeriod, "the log is published")
	for _, p := range r.relays {
		require.NoError(t, p.end())
	}
	r.relays = nil
	r.compare(t, &row)
}

// open makes the log and the handler, both in the same database.
func (r *relayRun) open(t *testing.T) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: r.dsn})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, driver.Close()) })
	r.store, err = mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(t, err)
	_, err = r.store.Head(within(t, patience)) // makes the tables
	require.NoError(t, err)
	r.db, err = sql.Open("mysql", r.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.db.Close()) })
	_, err = r.db.Exec("CREATE TABLE handled (at BIGINT AUTO_INCREMENT PRIMARY KEY, stream VARCHAR(16) NOT NULL, number BIGINT NOT NULL) ENGINE=InnoDB")
	require.NoError(t, err)
	box, err := driver.OpenInbox(t.Context(), state.InboxConfig{Name: "handled"})
	require.NoError(t, err)

	rabbit, err := rabbitbus.New(rabbitbus.Config{URLs: []string{r.broker.URL}, Logger: log, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
	require.NoError(t, err)
	b, err := bus.New(rabbit, bus.Config{Logger: log})
	require.NoError(t, err)
	handle := inbox.OnceRaw(box, r.effect)
	require.NoError(t, b.HandleRaw(r.topic, "handled", func(ctx context.Context, e *bus.Received) error {
		r.arrived.Add(1)
		if _, again := r.seen.LoadOrStore(e.MessageID, true); again {
			r.again.Add(1)
		}
		return handle(ctx, e)
	}, bus.SubscriptionOptions{PrefetchCount: 50}))
	ran := make(chan error, 1)
	life, stop := context.WithCancel(context.Background())
	go func() { ran <- b.Run(life) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-ran)
		assert.NoError(t, rabbit.Close(within(t, patience)))
	})
	bounded := within(t, 2*patience)
	require.Eventually(t, func() bool {
		list, err := rabbit.Queues(bounded)
		return err == nil && len(list) > 0 && containsQueue(list, r.topic)
	}, patience, pollPeriod, "the queue is declared")
}

func containsQueue(list []bus.QueueInfo, topic string) bool {
	for _, q := range list {
		if len(q.Name) > len(topic) && q.Name[:len(topic)] == topic {
			return true
		}
	}
	return false
}

// A numbered is what an event says: the how-manieth of its stream it is.
type numbered struct {
	Stream string `json:"stream"`
	Number int64  `json:"number"`
}

// effect is the handler's: a row, which nothing but the inbox keeps from being there twice.
func (r *relayRun) effect(ctx context.Context, tx *sql.Tx, e *bus.Received) error {
	var n numbered
	if err := json.Unmarshal(e.Body, &n); err != nil {
		return bus.Permanent(err)
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO handled (stream, number) VALUES (?, ?)", n.Stream, n.Number)
	return err
}

// write appends to streams of its own until ctx ends. What is not answered is appended again, with its id.
func (r *relayRun) write(ctx context.Context, writer uint64) {
	random := rand.New(rand.NewPCG(*seed, writer))
	numbers := map[string]int64{}
	for ctx.Err() == nil {
		stream := fmt.Sprintf("%d-%d", writer, random.IntN(relayStreams/relayWriters))
		events := make([]eventstore.Event, 1+random.IntN(3))
		for i := range events {
			numbers[stream]++
			events[i] = eventstore.Event{ID: uuid.NewString(), Type: "numbered", Data: jsontext.Value(fmt.Sprintf(`{"stream":%q,"number":%d}`, stream, numbers[stream]))}
		}
		for {
			bounded, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := r.store.Append(bounded, eventstore.StreamID{Category: relayCategory, ID: stream}, eventstore.Any, events...)
			cancel()
			if err == nil {
				break
			}
			_ = faults.Pause(context.Background(), afterRefusal)
		}
		r.appended.Add(int64(len(events)))
		_ = faults.Pause(ctx, r.pause) // some hundreds of events a second are enough
	}
}

const afterRefusal = 20 * time.Millisecond

// handled counts effects. A database that is away has none for now.
func (r *relayRun) handled() (n int64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM handled").Scan(&n)
	return n
}

// left is how many positions lie before the relay.
func (r *relayRun) left() (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	left, err := r.store.Head(ctx)
	if err != nil {
		return 0, err
	}
	marks, err := r.store.Marks(ctx, relayName)
	for _, m := range marks {
		left -= m.Position
	}
	return left, err
}

// compare holds the effects against the log.
func (r *relayRun) compare(t *testing.T, row *faults.RelayRow) {
	t.Helper()
	left, err := r.left()
	require.NoError(t, err)
	row.Appended, row.Arrived, row.Again, row.Left = int(r.appended.Load()), int(r.arrived.Load()), int(r.again.Load()), int(left)
	rows, err := r.db.QueryContext(within(t, patience), "SELECT stream, number FROM handled ORDER BY at")
	require.NoError(t, err)
	defer func() { assert.NoError(t, rows.Close()) }()
	type place struct {
		stream string
		number int64
	}
	last, effects := map[string]int64{}, map[place]int{}
	for rows.Next() {
		var p place
		require.NoError(t, rows.Scan(&p.stream, &p.number))
		if effects[p]++; effects[p] > 1 {
			row.HandledTwice++
			continue
		}
		if p.number != last[p.stream]+1 {
			row.Disordered++
		}
		last[p.stream] = max(last[p.stream], p.number)
	}
	require.NoError(t, rows.Err())
	row.Handled = len(effects)
	logged := 0
	for e, err := range r.store.ReadCategory(within(t, patience), relayCategory, eventstore.ReadOptions{}) {
		require.NoError(t, err)
		logged++
		if effects[place{e.Stream.ID, e.Version}] == 0 {
			row.Lost++
		}
	}
	assert.Equal(t, row.Appended, logged, "the log has what was acknowledged, once")
	assert.Zero(t, row.Lost, "events that were not handled")
	assert.Zero(t, row.HandledTwice, "events that were handled twice")
	assert.Zero(t, row.Disordered, "events that were handled before the one before")
	assert.Zero(t, row.Left, "events that were not published")
}
