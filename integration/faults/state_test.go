package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// A stateFault is a harm that is done to a store under load.
type stateFault struct {
	name  string
	times int // how often a long run does it; a quick one does it once
	harm  func(ctx context.Context) error
}

func TestStateRedis(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	open := func() (state.Driver, error) { return redisstate.New(redisstate.Config{URLs: []string{server.URL}}) }
	for _, f := range append(serverFaults(server.Server, 4),
		stateFault{"connections closed every 50 ms", 1, func(ctx context.Context) error {
			return withRedis(server.URL, func(c *redis.Client) error {
				return everyFiftyMilliseconds(ctx, func() error { return closeRedisConnections(ctx, c) })
			})
		}},
		stateFault{"connection limit filled for 2 s", 1, func(ctx context.Context) error {
			return withRedis(server.URL, func(c *redis.Client) error {
				conn := c.Conn() // the only one that there is room for
				defer func() { _ = conn.Close() }()
				limited := conn.ConfigSet(ctx, "maxclients", "1").Err()
				closed := conn.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err()
				return errors.Join(limited, closed, faults.Pause(ctx, briefly(2*time.Second)), conn.ConfigSet(ctx, "maxclients", "10000").Err())
			})
		}},
	) {
		t.Run(f.name, func(t *testing.T) { endureState(t, "redis", open, f) })
	}
}

func closeRedisConnections(ctx context.Context, c *redis.Client) error {
	return c.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err()
}

func TestStateMySQL(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	open := func() (state.Driver, error) { return mysqlstate.New(mysqlstate.Config{DSN: server.DSN}) }
	for _, f := range append(serverFaults(server.Server, 3),
		stateFault{"connections killed every 50 ms", 1, func(ctx context.Context) error {
			return withMySQL(ctx, server.DSN, func(c *sql.Conn) error {
				return everyFiftyMilliseconds(ctx, func() error { return killMySQLConnections(ctx, c) })
			})
		}},
		stateFault{"connection limit filled for 2 s", 1, func(ctx context.Context) error { return fillMySQL(ctx, server.DSN) }},
	) {
		t.Run(f.name, func(t *testing.T) { endureState(t, "mariadb", open, f) })
	}
}

// fillMySQL lowers the limit to what is taken by others, and kills the connections of the load.
func fillMySQL(ctx context.Context, dsn string) error {
	return withMySQL(ctx, dsn, func(c *sql.Conn) error {
		others, err := sql.Open("mysql", dsn)
		if err != nil {
			return err
		}
		defer func() { _ = others.Close() }()
		const least = 10 // the server takes no lower limit, and lets an administrator in beyond it
		held := make([]*sql.Conn, least)
		ids := "0"
		for i := range held {
			if held[i], err = others.Conn(ctx); err != nil {
				return err
			}
			defer func() { _ = held[i].Close() }()
			var id int64
			if err := held[i].QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
				return err
			}
			ids += "," + strconv.FormatInt(id, 10)
		}
		_, limited := c.ExecContext(ctx, fmt.Sprintf("SET GLOBAL max_connections = %d", least))
		return errors.Join(limited, killMySQLConnections(ctx, c, ids), faults.Pause(ctx, briefly(2*time.Second)), func() error {
			_, err := c.ExecContext(ctx, "SET GLOBAL max_connections = 500")
			return err
		}())
	})
}

func withMySQL(ctx context.Context, dsn string, do func(c *sql.Conn) error) error {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return do(conn)
}

// killMySQLConnections kills all but its own and those to be spared, whatever they are doing.
func killMySQLConnections(ctx context.Context, c *sql.Conn, spared ...string) error {
	query := "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'bannou' AND ID <> CONNECTION_ID()"
	for _, ids := range spared {
		query += " AND ID NOT IN (" + ids + ")"
	}
	ids, err := processIDs(ctx, c, query)
	if err != nil {
		return err
	}
	for _, id := range ids {
		_, _ = c.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", id)) // it may have gone by itself
	}
	return nil
}

func processIDs(ctx context.Context, c *sql.Conn, query string) (ids []int64, err error) {
	rows, err := c.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// serverFaults are what can be done to any server.
func serverFaults(server *servers.Server, kills int) []stateFault {
	return []stateFault{
		{"killed", kills, func(ctx context.Context) error { return errors.Join(server.Kill(), server.Restart(ctx)) }},
		{"stopped (SIGSTOP) for 3 s", 1, func(ctx context.Context) error {
			return errors.Join(server.Pause(), faults.Pause(ctx, briefly(3*time.Second)), server.Resume())
		}},
	}
}

// briefly is how long a harm lasts: half a second in a quick run.
func briefly(d time.Duration) time.Duration {
	if *long {
		return d
	}
	return min(d, 500*time.Millisecond)
}

func everyFiftyMilliseconds(ctx context.Context, do func() error) error {
	const every = 50 * time.Millisecond
	for range briefly(3*time.Second) / every {
		if err := errors.Join(do(), faults.Pause(ctx, every)); err != nil {
			return err
		}
	}
	return nil
}

// endureState puts a store under load, harms its server, and holds it to its promises.
func endureState(t *testing.T, engine string, open func() (state.Driver, error), f stateFault) {
	existing := goleak.IgnoreCurrent()
	d, err := open()
	require.NoError(t, err)
	store, err := openState(t.Context(), d)
	require.NoError(t, err)
	ledger := faults.NewStateLedger()
	load := &faults.StateLoad{Store: store, Run: fmt.Sprint(time.Now().UnixNano()), Seed: *seed, Begun: ledger.Begun, Ended: ledger.Ended, Fail: ledger.Fail}
	ctx, stop := context.WithCancel(context.Background())
	written := make(chan struct{})
	go func() { defer close(written); load.Write(ctx) }()
	defer func() { stop(); <-written }()

	row := faults.StateRow{Fault: f.name, Engine: engine}
	defer func() { enterState(t, row) }()
	harmState(t, ledger, f, &row)
	stop()
	<-written
	settleState(t, ledger, store, &row)
	require.NoError(t, d.Close())
	row.Leaked = leaked(existing)
	assert.Zero(t, row.Leaked, "goroutines left")
}

// enterState enters the row of a fault, whatever became of it.
func enterState(t *testing.T, row faults.StateRow) {
	row.Failed, row.Seed = t.Failed(), *seed
	rows.State = append(rows.State, row)
	t.Logf("seed %d: %+v", *seed, row.StateTotals)
}

func openState(ctx context.Context, d state.Driver) (*state.Store[int], error) {
	f, err := state.NewFactory([]state.StoreConfig{{Name: "faults", Backend: d.Backend()}}, []state.Driver{d}, state.Options{})
	if err != nil {
		return nil, err
	}
	return state.Open[int](ctx, f, "faults")
}

// harmState measures the rate, does the harm, and waits until the rate is back. A quick run waits until writes are acknowledged.
func harmState(t *testing.T, ledger *faults.StateLedger, f stateFault, row *faults.StateRow) {
	t.Helper()
	row.Times = 1
	if *long {
		row.Times = f.times
	}
	require.Eventually(t, func() bool { return ledger.Settled() > 200 }, patience, 10*time.Millisecond, "writes are acknowledged")
	meter := faults.Meter{Ledger: ledger}
	meter.Calibrate(t.Context(), briefly(time.Second))
	row.Before = meter.Before
	for range row.Times {
		require.NoError(t, f.harm(within(t, patience)))
		if !*long {
			before := ledger.Settled()
			require.Eventually(t, func() bool { return ledger.Settled() > before+100 }, patience, 10*time.Millisecond, "writes are acknowledged again")
			continue
		}
		if came := meter.Recover(within(t, patience), faults.StateShare); came.After >= row.Recovery.After || !came.Full {
			row.Recovery = came
			require.True(t, came.Full, "the rate came back to %.0f %% of %.0f writes/s only", 100*came.Share, meter.Before)
		}
	}
}

// settleState holds what the writers were told against what is stored.
func settleState(t *testing.T, ledger *faults.StateLedger, store *state.Store[int], row *faults.StateRow) {
	t.Helper()
	totals, err := ledger.Totals(within(t, patience), store)
	require.NoError(t, err)
	row.StateTotals = totals
	assert.NoError(t, ledger.Wrong())
	assert.Zero(t, totals.Lost, "acknowledged and lost")
	assert.Zero(t, totals.Untrue, "refused and made")
	assert.Zero(t, totals.Half, "transactions made by half")
	assert.Zero(t, totals.Twice, "counts made twice")
	assert.Empty(t, ledger.Late(), "calls that returned later than their deadline")
}
