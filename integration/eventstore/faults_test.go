package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// While the server is killed and started again, every append that was acknowledged stays, none that was refused is there, and one whose outcome
// is unknown is made once when it is repeated with its id. A subscription hands over each event, in order.
func TestServerKilledUnderWriters(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	s := open(t, server.DSN, eventstore.Config{})
	var mu sync.Mutex
	var handled []int64
	sub, err := s.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Poll: 20 * time.Millisecond, Batch: 1, Handle: func(_ context.Context, e eventstore.Recorded) error {
		mu.Lock()
		defer mu.Unlock()
		if len(handled) == 0 || handled[len(handled)-1] != e.Position { // the last one may come again
			handled = append(handled, e.Position)
		}
		return nil
	}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const writers = 8
	var made, unknown, refused atomic.Int64
	var wait sync.WaitGroup
	acknowledged, gone := make([][]string, writers), make([][]string, writers)
	wrong := make([]error, writers)
	for w := range writers {
		wait.Go(func() {
			for version := eventstore.Expected(0); ctx.Err() == nil && wrong[w] == nil; version++ {
				e := eventstore.Event{ID: uuid.NewString(), Type: "x", Data: jsontext.Value("1")}
				maybe := false // it may have been made by an earlier try
				for done := false; !done && wrong[w] == nil; {
					try, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					_, err := s.Append(try, eventstore.StreamID{Category: "killed", ID: fmt.Sprint(w)}, version, e)
					cancel()
					switch {
					case err == nil:
						acknowledged[w], done = append(acknowledged[w], e.ID), true
						made.Add(1)
					case errors.Is(err, state.ErrOutcomeUnknown):
						unknown.Add(1)
						maybe = true
					case errors.Is(err, state.ErrUnavailable):
						refused.Add(1)
						if !maybe {
							gone[w] = append(gone[w], e.ID) // it was not made, and gets another id
							e.ID = uuid.NewString()
						}
					default:
						wrong[w] = err
					}
				}
			}
		})
	}
	require.Eventually(t, func() bool { return made.Load() > 200 }, 20*time.Second, time.Millisecond)
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	before := made.Load()
	require.Eventually(t, func() bool { return made.Load() > before+100 }, 20*time.Second, time.Millisecond)
	stop()
	wait.Wait()
	require.NoError(t, errors.Join(wrong...))
	all := eventstoretest.CheckOrder(t, s)
	there := map[string]bool{}
	for _, e := range all {
		there[e.ID] = true
	}
	for w := range writers {
		for _, id := range acknowledged[w] {
			require.True(t, there[id], "an acknowledged event is lost")
		}
		for _, id := range gone[w] {
			require.False(t, there[id], "a refused event was appended")
		}
	}
	require.Len(t, all, int(made.Load()))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(handled) == len(all)
	}, 20*time.Second, 10*time.Millisecond)
	for i, position := range handled {
		require.EqualValues(t, i+1, position)
	}
	require.NoError(t, sub.Close(t.Context()))
	t.Logf("appended %d, unknown and repeated %d, refused %d, lost 0", made.Load(), unknown.Load(), refused.Load())
}

// Three processes share a subscription whose handler counts in its transaction. One is killed, one is stopped for longer than its lease, and goes
// on in the belief that it has it: each event is counted once.
func TestConsumersKilledAndStopped(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Exec("CREATE TABLE handled (position BIGINT NOT NULL, stream VARCHAR(64) NOT NULL, version BIGINT NOT NULL, at BIGINT AUTO_INCREMENT PRIMARY KEY)")
	require.NoError(t, err)
	s := open(t, dsn, eventstore.Config{})
	appended := 0
	add := func() {
		for i := range 12 {
			events := make([]eventstore.Event, 10)
			for j := range events {
				events[j] = eventstore.Event{Type: "x", Data: jsontext.Value("1")}
			}
			_, err := s.Append(t.Context(), eventstore.StreamID{Category: "shared", ID: fmt.Sprint(i)}, eventstore.Any, events...)
			require.NoError(t, err)
			appended += len(events)
		}
	}
	count := func() (n int) {
		require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM handled").Scan(&n))
		return n
	}
	caughtUp := func(n int) {
		require.Eventually(t, func() bool { return count() >= n }, 30*time.Second, 10*time.Millisecond)
	}
	add()
	consumers := []*process{startProcess(t, dsn, "consume"), startProcess(t, dsn, "consume"), startProcess(t, dsn, "consume")}
	caughtUp(appended)
	consumers[0].signal(t, syscall.SIGSTOP)
	add()
	caughtUp(appended) // the others take its partitions
	add()
	consumers[0].signal(t, syscall.SIGCONT)
	consumers[1].kill(t)
	add()
	caughtUp(appended)
	consumers[0].end(t)
	consumers[2].end(t)
	require.Equal(t, appended, count())
	var positions, wrong int
	require.NoError(t, db.QueryRow("SELECT COUNT(DISTINCT position) FROM handled").Scan(&positions))
	require.Equal(t, appended, positions)
	require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM handled a JOIN handled b ON a.stream = b.stream AND a.version < b.version AND a.at > b.at").Scan(&wrong))
	require.Zero(t, wrong, "events of a stream were handled out of order")
}

// consumeInTransactions is what each of the processes does.
func consumeInTransactions(ctx context.Context, dsn string) error {
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	if err != nil {
		return err
	}
	s, err := mysqlevents.Open(driver, eventstore.Config{})
	if err != nil {
		return err
	}
	sub, err := s.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Partitions: 4, Lease: 500 * time.Millisecond, Poll: 10 * time.Millisecond, Batch: 5,
		HandleIn: func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO handled (position, stream, version) VALUES (?, ?, ?)", e.Position, e.Stream.ID, e.Version)
			return err
		}})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(sub.Close(context.WithoutCancel(ctx)), driver.Close())
}
