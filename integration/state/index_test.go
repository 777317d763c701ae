package state_test

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// openIndexed opens a store and waits for its indexes.
func openIndexed(t *testing.T, d state.Driver, indexes ...string) state.Engine {
	t.Helper()
	e, err := d.Open(t.Context(), state.StoreConfig{Name: "s", Backend: d.Backend(), TableName: "state_entries", Indexes: indexes})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(e.(state.Indexer).Indexed()) == len(indexes) }, patience, 5*time.Millisecond)
	return e
}

// The statements that the server is sent are served by the declared indexes, as it explains them itself, and touch few rows.
func TestMySQLIndexesAreUsed(t *testing.T) {
	t.Run("MariaDB", func(t *testing.T) { indexesAreUsed(t, servers.NewMySQL(t, servers.MySQLOptions{})) })
	t.Run("MySQL 8", func(t *testing.T) { indexesAreUsed(t, servers.NewMySQL8(t, servers.MySQLOptions{})) })
}

func indexesAreUsed(t *testing.T, server *servers.MySQLServer) {
	t.Helper()
	e := openIndexed(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}), "level", "a.b")
	var changes []state.Change
	for i := range 1000 {
		changes = append(changes, state.Change{Key: fmt.Sprint(i), Value: fmt.Appendf(nil, `{"level":%d,"name":"n%d","a":{"b":"%d"}}`, i%100, i, i%50), Expiry: state.Never})
	}
	_, err := e.Apply(t.Context(), changes)
	require.NoError(t, err)

	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	db.SetMaxOpenConns(1)
	for _, statement := range []string{"SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1"} {
		_, err := db.Exec(statement)
		require.NoError(t, err)
	}
	sorts := []state.Sort{{Field: "level"}, {Field: "name"}}
	for _, c := range []struct {
		filter state.Filter
		found  int
		sort   []state.Sort
	}{
		{state.Where("level").Eq(7), 10, nil},
		{state.Where("a.b").Eq("7"), 20, nil},
		{state.Where("level").Eq(7), 10, sorts},
		{state.Where("level").In(7, 8), 20, sorts},
		{state.Where("level").Gte(7).And(state.Where("level").Lt(9)), 20, sorts},
		{state.Where("a.b").Eq("7"), 20, sorts},
		{state.Where("a.b").StartsWith("4").And(state.Where("level").Gt(90)), 10 * 9, sorts},
	} {
		q := state.Query{Filter: c.filter, Sort: c.sort}
		_, err := e.(state.Querier).Query(t.Context(), q)
		require.NoError(t, err)
		var text string
		require.NoError(t, db.QueryRow("SELECT argument FROM mysql.general_log WHERE argument LIKE 'SELECT e.%FORCE INDEX%' ORDER BY event_time DESC LIMIT 1").Scan(&text))
		var key string
		var rows int
		plan := explain(t, db, text)
		key, rows = plan["key"], number(t, plan["rows"])
		require.True(t, strings.HasPrefix(key, "ix_"), "%v of %s", plan, text)
		require.LessOrEqual(t, rows, 25*c.found/10+5, "%v of %s", plan, text)
		_, err = db.Exec("TRUNCATE TABLE mysql.general_log")
		require.NoError(t, err)
	}
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	_, err := fmt.Sscan(text, &n)
	require.NoError(t, err)
	return n
}

// explain is the first row of what the server says that it does.
func explain(t *testing.T, db *sql.DB, text string) map[string]string {
	t.Helper()
	rows, err := db.Query("EXPLAIN " + text)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	names, err := rows.Columns()
	require.NoError(t, err)
	require.True(t, rows.Next())
	values, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	require.NoError(t, rows.Scan(into...))
	for rows.Next() { // of subqueries
	}
	require.NoError(t, rows.Err())
	plan := map[string]string{}
	for i, name := range names {
		plan[strings.ToLower(name)] = values[i].String
	}
	return plan
}

// An index that takes longer to be made than an answer usually may is made all the same, at once.
func TestMySQLIndexOutlastsTheReadTimeout(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	require.NoError(t, saveOne(t.Context(), openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn})), "k")) // makes the table
	db := openSQL(t, dsn)
	reader, err := db.BeginTx(t.Context(), nil) // until it ends, no index is added to what it has read
	require.NoError(t, err)
	defer func() { _ = reader.Rollback() }()
	var n int
	require.NoError(t, reader.QueryRow("SELECT COUNT(*) FROM state_entries").Scan(&n))

	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	var failed lineCount
	d := newMySQL(t, mysqlstate.Config{DSN: dsn + separator + "readTimeout=500ms", Logger: slog.New(slog.NewTextHandler(&failed, nil))})
	e, err := d.Open(t.Context(), state.StoreConfig{Name: "s", Backend: d.Backend(), TableName: "state_entries", Indexes: []string{"a"}})
	require.NoError(t, err)
	altering := func(seconds int) func() bool {
		return func() bool {
			var n int
			err := db.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE 'ALTER TABLE%' AND TIME >= ?", seconds).Scan(&n)
			return err == nil && n == 1
		}
	}
	require.Eventually(t, altering(0), patience, time.Millisecond)
	before := failed.Load() // on a busy machine what comes before may have taken too long
	require.Eventually(t, altering(1), patience, 10*time.Millisecond)
	require.NoError(t, reader.Rollback())
	require.Eventually(t, func() bool { return len(e.(state.Indexer).Indexed()) == 1 }, patience, 5*time.Millisecond)
	require.Equal(t, before, failed.Load(), "it is not given up")
}

// lineCount counts what is logged.
type lineCount struct{ atomic.Int64 }

func (c *lineCount) Write(line []byte) (int, error) {
	c.Add(1)
	return len(line), nil
}

// Indexes are made while others write, by several processes at once, on values that are there already; no write fails, and
// queries find everything before and after.
func TestMySQLIndexesAreMadeOnline(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn}))
	var changes []state.Change
	for i := range 3000 {
		changes = append(changes, state.Change{Key: fmt.Sprintf("old-%d", i), Value: fmt.Appendf(nil, `{"level":%d,"pad":%q}`, i%10, strings.Repeat("x", 500)), Expiry: state.Never})
	}
	for len(changes) > 0 {
		_, err := e.Apply(t.Context(), changes[:500])
		require.NoError(t, err)
		changes = changes[500:]
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	var slowest time.Duration
	saved := 0
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			began := time.Now()
			if err := saveOne(t.Context(), e, fmt.Sprintf("new-%d", saved)); err != nil {
				done <- err
				return
			}
			saved++
			slowest = max(slowest, time.Since(began))
		}
	}()
	indexed := make([]state.Engine, 3)
	var wait sync.WaitGroup
	for i := range indexed {
		wait.Go(func() { indexed[i] = openIndexed(t, newMySQL(t, mysqlstate.Config{DSN: dsn}), "level", "v") })
	}
	wait.Wait()
	close(stop)
	require.NoError(t, <-done)
	t.Logf("%d saves while two indexes were made, the slowest took %v", saved, slowest)
	require.Positive(t, saved)
	for _, one := range append(indexed, e) {
		for filter, want := range map[string]int{`{"level":7}`: 300, `{"v":1}`: saved} {
			parsed, err := state.ParseFilter([]byte(filter))
			require.NoError(t, err)
			n, err := one.(state.Querier).Count(t.Context(), parsed)
			require.NoError(t, err)
			require.EqualValues(t, want, n)
		}
	}
}

// Columns of an index are made of one another, and of values of every kind. While many change, delete and expire them at
// once, the index stays what the table says, as the server itself checks, and finds what is there.
func TestMySQLIndexesStayWhole(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	e := openIndexed(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}), "v", "a.b")
	long := strings.Repeat("ü", 300)
	values := []string{
		`7`, `-7.5`, `"7"`, `"x"`, `""`, `null`, `true`, `false`, `"1"`, `0`, `[7]`, `[]`, `{"c":1}`, `1e300`, `9007199254740993`,
		`"` + long + `"`, `"5` + long + `"`, `1.` + strings.Repeat("0", 300), `"\u0037"`, `"-"`, `"a\"b"`, `"null"`, `0.1`,
	}
	const writers, rounds, keys = 8, 40, 60
	var wait sync.WaitGroup
	failures := make([]error, writers)
	for w := range writers {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for range rounds {
				var changes []state.Change
				for _, key := range random.Perm(keys)[:8] {
					c := state.Change{Key: fmt.Sprint(key), Expiry: state.Never, Delete: random.IntN(4) == 0}
					if v := values[random.IntN(len(values))]; !c.Delete {
						c.Value = []byte([]string{`{"v":` + v + `}`, `{"a":{"b":` + v + `},"v":1}`, `{"a":[{"b":` + v + `}]}`, v}[random.IntN(4)])
					}
					changes = append(changes, c)
				}
				outcomes, err := e.Apply(t.Context(), changes)
				if err != nil {
					failures[w] = err
					return
				}
				for _, o := range outcomes {
					failures[w] = errors.Join(failures[w], o.Err)
				}
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(failures...))

	plain, err := newMySQL(t, mysqlstate.Config{DSN: server.DSN}).Open(t.Context(), state.StoreConfig{Name: "s", Backend: "mysql", TableName: "state_entries"})
	require.NoError(t, err)
	found := 0
	for _, path := range []string{"v", "a.b"} {
		for _, v := range append(values, `1`, `-1`) {
			if v[0] == '{' || v[0] == '[' {
				continue
			}
			filter, err := state.ParseFilter(fmt.Appendf(nil, `{%q:%s}`, path, v))
			require.NoError(t, err)
			want, err := plain.(state.Querier).Query(t.Context(), state.Query{Filter: filter})
			require.NoError(t, err)
			for _, q := range []state.Query{{Filter: filter}, {Filter: filter, Sort: []state.Sort{{Field: "v"}}}} {
				got, err := e.(state.Querier).Query(t.Context(), q)
				require.NoError(t, err)
				require.ElementsMatch(t, keysOf(want), keysOf(got), "%s %s", path, v)
			}
			found += len(want)
		}
	}
	require.NotZero(t, found)

	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var table, op, kind, text string
	require.NoError(t, db.QueryRow("CHECK TABLE state_entries EXTENDED").Scan(&table, &op, &kind, &text))
	require.Equal(t, "OK", text, "%s: %s", table, kind)
}

func keysOf(records []state.Record) []string {
	keys := make([]string, len(records))
	for i, r := range records {
		keys[i] = r.Key
	}
	return keys
}

// A server that has no room for more prepared statements is asked without.
func TestMySQLQueriesUnprepared(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	e := openIndexed(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}), "v")
	require.NoError(t, saveOne(t.Context(), e, "k"))
	query := func(q state.Query) error {
		records, err := e.(state.Querier).Query(t.Context(), q)
		if err == nil && len(records) != 1 {
			err = fmt.Errorf("%d records", len(records))
		}
		return err
	}
	indexed, other := state.Query{Filter: state.Where("v").Eq(1)}, state.Query{Filter: state.Where("v").Ne(2)}
	for range 3 {
		require.NoError(t, query(indexed))
	}
	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var name string
	var there int
	require.NoError(t, db.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&name, &there))
	_, err = db.Exec(fmt.Sprintf("SET GLOBAL max_prepared_stmt_count = %d", there))
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, query(other), "one that cannot be prepared")
	}
	var wait sync.WaitGroup
	failures := make([]error, 16)
	for i := range failures {
		wait.Go(func() { // on other connections, where it is not prepared yet
			for range 20 {
				failures[i] = errors.Join(failures[i], query(indexed))
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(failures...))
}
