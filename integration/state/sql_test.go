package state_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func openMySQL(t *testing.T) state.Driver {
	t.Helper()
	return openDSN(t, servers.MySQL(t).DSN)
}

func openDSN(t *testing.T, dsn string) state.Driver {
	t.Helper()
	return onMySQL{newMySQL(t, mysqlstate.Config{DSN: dsn}), dsn}
}

// onMySQL is a driver and the way behind it.
type onMySQL struct {
	state.Driver
	dsn string
}

func newMySQL(t *testing.T, cfg mysqlstate.Config) *mysqlstate.Driver {
	t.Helper()
	d, err := mysqlstate.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func openStore(t *testing.T, d state.Driver) state.Engine {
	t.Helper()
	e, err := d.Open(t.Context(), state.StoreConfig{Name: "s", Backend: d.Backend(), TableName: "state_entries"})
	require.NoError(t, err)
	return e
}

func saveOne(ctx context.Context, e state.Engine, key string) error {
	_, err := e.Apply(ctx, []state.Change{{Key: key, Value: []byte(`{"v":1}`), Expiry: state.Keep}})
	return err
}

// mariaDBDepth is how deep MariaDB's JSON functions read; MySQL's read 100.
const mariaDBDepth = 31

var rounds = flag.Int("rounds", 0, "how often random queries are compared with a plain evaluation; 0: the suite's default")

// The conformance suite. Its queries are the same cases, and the same random comparison with a plain evaluation, as on
// SQLite: the rows are the same.
func TestMySQL(t *testing.T) {
	t.Parallel()
	statetest.Run(t, openMySQL, statetest.Features{Query: true, QueryRounds: *rounds, AnyKeys: true, ExpiryAtBegin: true, Depth: mariaDBDepth, Corrupt: corruptMySQL})
}

// The same suite, cases and comparison on Oracle's MySQL, whose JSON is another program than MariaDB's.
func TestMySQL8(t *testing.T) {
	t.Parallel()
	server := servers.NewMySQL8(t, servers.MySQLOptions{})
	open := func(t *testing.T) state.Driver { return openDSN(t, server.NewDatabase(t).DSN) }
	statetest.Run(t, open, statetest.Features{Query: true, QueryRounds: max(*rounds, 2), AnyKeys: true, ExpiryAtBegin: true, FloatRange: true, Corrupt: corruptMySQL})
	t.Run("inbox", func(t *testing.T) {
		statetest.RunInbox(t, func(t *testing.T) statetest.InboxPlace { return inboxPlace(t, server.NewDatabase(t).DSN) })
	})
}

// Transactions that make the same absent keys at once: one makes them all, the others conflict.
func TestMySQLCreateTogether(t *testing.T) {
	e := openStore(t, openMySQL(t))
	for round := range 10 {
		var changes []state.Change
		for i := range 5 {
			changes = append(changes, state.Change{Key: fmt.Sprintf("%d-%d", round, i), Value: []byte("1"), When: state.IfAbsent, Expiry: state.Never})
		}
		const workers = 6
		made := make([]bool, workers)
		errs := make([]error, workers)
		var wait sync.WaitGroup
		for worker := range workers {
			wait.Go(func() {
				outcomes, err := e.Transact(t.Context(), changes)
				made[worker], errs[worker] = err == nil && outcomes[0].Done, err
			})
		}
		wait.Wait()
		require.NoError(t, errors.Join(errs...))
		winners := 0
		for _, m := range made {
			if m {
				winners++
			}
		}
		require.Equal(t, 1, winners)
	}
}

// Processes that start at once on an empty database make the table once, and all work.
func TestMySQLStartTogether(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	const processes = 5
	errs := make([]error, processes)
	var wait sync.WaitGroup
	for i := range processes {
		e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn}))
		wait.Go(func() { errs[i] = saveOne(t.Context(), e, fmt.Sprint(i)) })
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	n, err := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn})).Len(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, processes, n)
}

// Expired rows leave the table, and only they.
func TestMySQLSweep(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	d := newMySQL(t, mysqlstate.Config{DSN: dsn, SweepInterval: 10 * time.Millisecond})
	e := openStore(t, d)
	var changes []state.Change
	for i := range 700 {
		changes = append(changes, state.Change{Key: fmt.Sprint(i), Value: []byte("1"), Expiry: state.After(time.Millisecond)})
	}
	_, err := e.Apply(t.Context(), append(changes, state.Change{Key: "stays", Value: []byte("1"), Expiry: state.After(time.Hour)}))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return countRows(t, dsn) == 1 }, patience, 10*time.Millisecond)
}

// Values of every size a store takes are saved in bulk, and come back.
func TestMySQLLargeBulk(t *testing.T) {
	e := openStore(t, openMySQL(t))
	var changes []state.Change
	var keys []string
	for i, size := range []int{10, state.MaxValueBytes - 2, 3 << 20, 1 << 20, 1 << 20, 5} {
		keys = append(keys, fmt.Sprint(i))
		changes = append(changes, state.Change{Key: keys[i], Value: []byte(`"` + strings.Repeat("'", size) + `"`), Expiry: state.Never})
	}
	outcomes, err := e.Apply(t.Context(), changes)
	require.NoError(t, err)
	records, err := e.Get(t.Context(), keys)
	require.NoError(t, err)
	for i, r := range records {
		require.True(t, outcomes[i].Done)
		require.Len(t, r.Value, len(changes[i].Value))
	}
}

// A value that the server would not read in a query is refused when it is saved, by itself and among others.
func TestMySQLTooDeep(t *testing.T) {
	e := openStore(t, openMySQL(t))
	deep := state.Change{Key: "k", Value: []byte(strings.Repeat("[", 200) + strings.Repeat("]", 200)), Expiry: state.Keep}
	_, err := e.Apply(t.Context(), []state.Change{deep})
	require.ErrorIs(t, err, state.ErrInvalid)
	require.ErrorContains(t, err, "nested too deep")
	_, err = e.Apply(t.Context(), []state.Change{deep, {Key: "j", Value: []byte("1"), Expiry: state.Keep}})
	require.ErrorIs(t, err, state.ErrInvalid)
}

// A server that is not there yet fails no start and no later operation; no error shows the password.
func TestMySQLServerComesLater(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	require.NoError(t, server.Stop(t.Context()))
	dsn := strings.Replace(server.DSN, "@tcp", ":not-to-be-seen@tcp", 1)
	if strings.Contains(strings.SplitN(server.DSN, "@tcp", 2)[0], ":") {
		dsn = server.DSN
	}
	d := newMySQL(t, mysqlstate.Config{DSN: dsn})
	e := openStore(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	started := time.Now()
	_, getErr := e.Get(ctx, []string{"k"})
	for _, err := range []error{saveOne(ctx, e, "k"), getErr, d.Ready(ctx)} {
		require.ErrorIs(t, err, state.ErrUnavailable)
		require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
		require.NotContains(t, err.Error(), "not-to-be-seen")
		require.NotContains(t, err.Error(), server.DSN)
	}
	require.Less(t, time.Since(started), 20*time.Second)

	require.NoError(t, server.Restart(t.Context()))
	d = newMySQL(t, mysqlstate.Config{DSN: server.DSN})
	e = openStore(t, d)
	require.NoError(t, saveOne(t.Context(), e, "k"))
	require.NoError(t, d.Ready(t.Context()))

	// Connections that the driver holds die with the server, and are replaced when it is back.
	require.NoError(t, server.Stop(t.Context()))
	require.Error(t, d.Ready(t.Context()))
	require.NoError(t, server.Restart(t.Context()))
	require.NoError(t, saveOne(t.Context(), e, "k"))
	records, err := e.Get(t.Context(), []string{"k"})
	require.NoError(t, err)
	require.EqualValues(t, 2, records[0].Version)
}

// A server that hangs holds nobody beyond the deadline. What became of the write that it had been sent is unknown, and
// said so; a read is unavailable.
func TestMySQLServerHangs(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}))
	require.NoError(t, saveOne(t.Context(), e, "k"))
	require.NoError(t, server.Pause())
	for _, try := range []struct {
		run  func(ctx context.Context) error
		want error
	}{
		{func(ctx context.Context) error { return saveOne(ctx, e, "k") }, state.ErrOutcomeUnknown},
		{func(ctx context.Context) error { _, err := e.Get(ctx, []string{"k"}); return err }, state.ErrUnavailable},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		started := time.Now()
		err := try.run(ctx)
		require.ErrorIs(t, err, try.want)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(started), 20*time.Second)
		cancel()
	}
	require.NoError(t, server.Resume())
	require.NoError(t, saveOne(t.Context(), e, "k"))
}

// A query that nobody waits for any more does not go on in the server.
func TestMySQLEndsAbandonedQueries(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn}))
	for i := range 1000 {
		require.NoError(t, saveOne(t.Context(), e, fmt.Sprint(i)))
	}
	heavy := `{"$and":[` + strings.TrimSuffix(strings.Repeat(`{"a.0.0.0.0`+strings.Repeat(".x", 27)+`":null},`, 200), ",") + `]}`
	filter, err := state.ParseFilter([]byte(heavy))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = e.(state.Querier).Query(ctx, state.Query{Filter: filter})
	require.ErrorIs(t, err, context.DeadlineExceeded)

	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Eventually(t, func() bool {
		var running int
		err := db.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND COMMAND = 'Query' AND ID <> CONNECTION_ID()").Scan(&running)
		return err == nil && running == 0
	}, patience, 20*time.Millisecond)
}

// While the server is killed and restarted under writers, every save that was acknowledged stays, and every one that
// failed says whether it may have been made.
func TestMySQLKilledUnderWriters(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}))
	require.NoError(t, saveOne(t.Context(), e, "first"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const workers = 4
	var wait sync.WaitGroup
	saved, refused := make([][]string, workers), make([][]string, workers)
	wrong := make([]error, workers)
	running := make(chan struct{}, workers)
	for worker := range workers {
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d-%d", worker, i)
				try, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
				err := saveOne(try, e, key)
				cancel()
				switch {
				case err == nil:
					saved[worker] = append(saved[worker], key)
				case errors.Is(err, state.ErrUnavailable):
					refused[worker] = append(refused[worker], key)
				case !errors.Is(err, state.ErrOutcomeUnknown):
					wrong[worker] = err
				}
				if i == 100 {
					running <- struct{}{}
				}
			}
		})
	}
	for range workers {
		<-running
	}
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	require.NoError(t, saveOne(t.Context(), e, "last"))
	stop()
	wait.Wait()
	require.NoError(t, errors.Join(wrong...))
	for worker := range workers {
		checkPresence(t, e, saved[worker], true)
		checkPresence(t, e, refused[worker], false)
	}
}

// checkPresence reads keys in bulk.
func checkPresence(t *testing.T, e state.Engine, keys []string, want bool) {
	t.Helper()
	for len(keys) > 0 {
		n := min(len(keys), state.MaxBulkKeys)
		present, err := e.Exists(t.Context(), keys[:n])
		require.NoError(t, err)
		for i, p := range present {
			require.Equal(t, want, p, "key %s", keys[i])
		}
		keys = keys[n:]
	}
}

// A DSN that cannot be right is refused without being shown.
func TestMySQLBadDSN(t *testing.T) {
	for _, dsn := range []string{"", "secret", "user:secret@tcp(host:1)/", "user:secret@host:1/db?x", "user:secret@tcp(host/db"} {
		_, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
		require.ErrorIs(t, err, state.ErrInvalid, dsn)
		require.NotContains(t, err.Error(), "secret")
	}
}
