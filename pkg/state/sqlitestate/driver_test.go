package sqlitestate_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) state.Driver {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "data", "state.db"))
}

func openAt(t *testing.T, path string) *sqlitestate.Driver {
	t.Helper()
	d, err := sqlitestate.New(sqlitestate.Config{Path: path, SweepInterval: 10 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// fileOf is the path of the driver's file.
func fileOf(t *testing.T, d state.Driver) string {
	t.Helper()
	return d.(*sqlitestate.Driver).Path()
}

func openStore(t testing.TB, d state.Driver, name string) state.Engine {
	t.Helper()
	e, err := d.Open(t.Context(), state.StoreConfig{Name: name, Backend: "sqlite", TableName: "state_entries"})
	require.NoError(t, err)
	return e
}

func save(t testing.TB, e state.Engine, c state.Change) state.Outcome {
	t.Helper()
	outcomes, err := e.Apply(t.Context(), []state.Change{c})
	require.NoError(t, err)
	return outcomes[0]
}

var rounds = flag.Int("rounds", 0, "how often random queries are compared with a plain evaluation; 0: the suite's default")

// The conformance suite, queries included.
func TestConformance(t *testing.T) {
	statetest.Run(t, open, statetest.Features{Query: true, QueryRounds: *rounds, AnyKeys: true, ExpiryAtBegin: true, Reopen: reopen, Corrupt: corrupt})
}

// reopen is another driver on the file of d.
func reopen(t *testing.T, d state.Driver) state.Driver {
	t.Helper()
	path := fileOf(t, d)
	require.NoError(t, d.Close())
	return openAt(t, path)
}

// corrupt changes a row behind the driver's back, past the table's check.
func corrupt(t *testing.T, d state.Driver, store, key, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", fileOf(t, d)+"?_pragma=ignore_check_constraints(1)&_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	result, err := db.Exec("UPDATE state_entries SET value = ? WHERE store = ? AND key = ?", text, store, key)
	require.NoError(t, err)
	n, err := result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// What was acknowledged is there after the file has been closed and opened again.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space?and#%41", "state.db")
	d, err := sqlitestate.New(sqlitestate.Config{Path: path})
	require.NoError(t, err)
	saved := save(t, openStore(t, d, "s"), state.Change{Key: "k", Value: []byte(`{"n":1.10}`), Expiry: state.Keep})
	require.NoError(t, d.Close())
	require.NoError(t, d.Close(), "closing twice does no harm")

	again := openAt(t, path)
	require.NoError(t, again.Ready(t.Context()))
	records, err := openStore(t, again, "s").Get(t.Context(), []string{"k", "absent"})
	require.NoError(t, err)
	require.Equal(t, `{"n":1.10}`, string(records[0].Value))
	require.Equal(t, saved.ETag, records[0].ETag)
	require.False(t, records[1].Found)
}

// Only the owner may read the folder and the file.
func TestPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "state.db")
	openStore(t, openAt(t, path), "s")
	for name, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600, path + "-wal": 0o600} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), name)
	}
}

// A path that cannot be used is refused with one sentence that names it.
func TestUnusablePath(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	require.NoError(t, os.WriteFile(text, []byte("this is not a database, and long enough to be taken for one by its size alone ......................"), 0o600))
	for path, says := range map[string]string{
		"":                              "path of the database file is empty",
		text:                            "is not a SQLite database; name another file",
		dir:                             "cannot be opened: is a directory",
		filepath.Join(text, "state.db"): "cannot be created: not a directory",
	} {
		_, err := sqlitestate.New(sqlitestate.Config{Path: path})
		require.ErrorContains(t, err, says)
		if path != "" {
			require.ErrorContains(t, err, filepath.Dir(path), "the sentence says where")
		}
		require.NotContains(t, err.Error(), "\n")
	}
	kept, err := os.ReadFile(text)
	require.NoError(t, err)
	require.Contains(t, string(kept), "not a database", "the file is left as it was")
}

// Table names are the one thing that is not bound.
func TestTableNames(t *testing.T) {
	d := open(t)
	for _, name := range []string{"", "x; DROP TABLE y", "Ü", "a-b", "1a", `a"b`, "sixty_characters_are_too_many_for_a_table_with_a_suffix_xxxxx"} {
		_, err := d.Open(t.Context(), state.StoreConfig{Name: "s", TableName: name})
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	_, err := d.Open(t.Context(), state.StoreConfig{Name: "s", TableName: "other_2"})
	require.NoError(t, err)
}

// Several processes may open a new file at the same moment.
func TestConcurrentOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	var wait sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		d := openAt(t, path)
		wait.Go(func() {
			e, err := d.Open(context.Background(), state.StoreConfig{Name: "s", TableName: "state_entries"})
			if err == nil {
				_, err = e.Apply(context.Background(), []state.Change{{Key: fmt.Sprint(i), Value: []byte("1"), Expiry: state.Keep}})
			}
			errs[i] = err
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	n, err := openStore(t, openAt(t, path), "s").Len(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(errs), n)
}

// Expired rows leave the file, not only the sight, and only they.
func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	e := openStore(t, openAt(t, path), "s")
	for i := range 500 {
		save(t, e, state.Change{Key: fmt.Sprint(i), Value: []byte("1"), Expiry: state.After(time.Millisecond)})
	}
	save(t, e, state.Change{Key: "stays", Value: []byte("1"), Expiry: state.After(time.Hour)})
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Eventually(t, func() bool {
		var n int
		return db.QueryRow("SELECT count(*) FROM state_entries").Scan(&n) == nil && n == 1
	}, 10*time.Second, 10*time.Millisecond)
}

// A value that SQLite would not read in a query is refused when it is saved.
func TestTooDeep(t *testing.T) {
	e := openStore(t, open(t), "s")
	deep := make([]byte, 0, 4002)
	for range 2001 {
		deep = append(deep, '[')
	}
	for range 2001 {
		deep = append(deep, ']')
	}
	_, err := e.Apply(t.Context(), []state.Change{{Key: "k", Value: deep, Expiry: state.Keep}})
	require.ErrorIs(t, err, state.ErrInvalid)
	require.ErrorContains(t, err, "nested")
}

// Whatever a filter is, it is answered in time or refused as a bad filter; a caller's mistake is not a server that is away.
func TestHeavyFilters(t *testing.T) {
	e := openStore(t, open(t), "s")
	for i := range 200 {
		save(t, e, state.Change{Key: fmt.Sprint(i), Value: []byte(`{"a":[{"b":1},[1]]}`), Expiry: state.Keep})
	}
	every := func(path string) string {
		return `{"$and":[` + strings.TrimSuffix(strings.Repeat(`{"`+path+`":1},`, state.MaxFilterClauses), ",") + `]}`
	}
	for name, filter := range map[string]string{
		"indexes":      `{"a` + strings.Repeat(".0", 16) + `":1}`,
		"long paths":   every("a" + strings.Repeat(".x", state.MaxPathSegments-1)),
		"both":         every("a" + strings.Repeat(".0", 4) + strings.Repeat(".x", state.MaxPathSegments-5)),
		"a few of all": every("a.0.b.1.c"),
	} {
		t.Run(name, func(t *testing.T) {
			f, err := state.ParseFilter([]byte(filter))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a second when nothing else runs; the detector and a busy machine take longer
			defer cancel()
			if _, err = e.(state.Querier).Query(ctx, state.Query{Filter: f}); err != nil {
				var wrong *state.FilterError
				require.ErrorAs(t, err, &wrong)
			}
		})
	}
}

// FuzzFilter looks for a filter that is accepted but not evaluated.
func FuzzFilter(f *testing.F) {
	d, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(f.TempDir(), "state.db")})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, d.Close()) })
	e := openStore(f, d, "s")
	for i, value := range []string{`{"a":{"b":[1,{"c":"x"}]}}`, `[{"a":1}]`, `"text"`, `{"a":[[1],{"0":{}}]}`} {
		save(f, e, state.Change{Key: fmt.Sprint(i), Value: []byte(value), Expiry: state.Keep})
	}
	for _, seed := range []string{`{"a.b.c":"x"}`, `{"a.0.b":{"$in":[1,"x",null,true]}}`, `{"$not":{"a\"b":{"$gte":-1e300}}}`, `{"a":{"$exists":true,"$startsWith":"\u0000"}}`, `{"?@'":{"$endsWith":"%"}}`} {
		f.Add([]byte(seed), "a.0")
	}
	f.Fuzz(func(t *testing.T, data []byte, field string) {
		filter, err := state.ParseFilter(data)
		q := state.Query{Filter: filter, Sort: []state.Sort{{Field: field}}}
		if err != nil || q.Validate() != nil {
			return
		}
		var wrong *state.FilterError
		if _, err := e.(state.Querier).Query(context.Background(), q); err != nil && !errors.As(err, &wrong) {
			t.Fatalf("%s by %q: %v", data, field, err)
		}
	})
}
