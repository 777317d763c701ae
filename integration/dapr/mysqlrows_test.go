package dapr_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// mysqlComponent is Dapr's component on the database of the test.
func mysqlComponent(name string, s *servers.MySQLServer, more ...string) string {
	server, _, _ := strings.Cut(s.DSN, "/")
	text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: state.mysql\n  version: v1\n  metadata:\n"
	for _, pair := range append([]string{"connectionString", server + "/?allowNativePasswords=true", "schemaName", s.Database}, more...) {
		if !strings.HasSuffix(text, "value: ") {
			text += "  - name: " + pair + "\n    value: "
			continue
		}
		text += strconv.Quote(pair) + "\n"
	}
	return text
}

// openMySQLRows opens the rows of an app as a store of the library.
func openMySQLRows(t *testing.T, s *servers.MySQLServer, prefix string) *state.Store[jsontext.Value] {
	t.Helper()
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: s.DSN})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "rows", Backend: "mysql", KeyPrefix: prefix, TableName: s.Database + ".state"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	store, err := state.Open[jsontext.Value](t.Context(), factory, "rows")
	require.NoError(t, err)
	return store
}

// servers on which the rows of Dapr's MySQL store are shared.
func eachMySQL(t *testing.T, run func(t *testing.T, s *servers.MySQLServer)) {
	t.Run("MariaDB", func(t *testing.T) { run(t, servers.MySQL(t)) })
	t.Run("MySQL 8", func(t *testing.T) { run(t, servers.NewMySQL8(t, servers.MySQLOptions{}).NewDatabase(t)) })
}

// A store in Dapr's table in MySQL is read and written in place by daprd, by the facade and by a native store with the prefix "app||", whoever wrote
// last, with the table that Dapr has made: values, ETags, times to live, deletes, transactions.
func TestSameRowsInMySQL(t *testing.T) {
	eachMySQL(t, func(t *testing.T, server *servers.MySQLServer) {
		resources := []string{mysqlComponent("table", server)}
		sides := map[string]*side{"dapr": newDaprd(t, resources, newApp(t, "[]"))}
		sides["facade"] = newFacade(t, resources, newApp(t, "[]"))
		native := openMySQLRows(t, server, "app||")
		for writer, s := range sides {
			key := "by-" + writer
			require.Equal(t, "204", s.call("POST", stateOf+"table", `[{"key":"`+key+`","value":{"by":"`+writer+`"}},{"key":"brief-`+writer+`","value":1,"metadata":{"ttlInSeconds":"1"}}]`))
			for reader, r := range sides {
				require.JSONEq(t, `{"by":"`+writer+`"}`, strings.TrimPrefix(r.call("GET", stateOf+"table/"+key, ""), "200 "), "%s reads what %s wrote", reader, writer)
			}
			value, err := native.Get(t.Context(), key)
			require.NoError(t, err)
			require.JSONEq(t, `{"by":"`+writer+`"}`, string(value))
			for reader, r := range sides {
				require.Eventually(t, func() bool { return r.call("GET", stateOf+"table/brief-"+writer, "") == "204" }, wait, 50*time.Millisecond, "%s sees what %s wrote expire", reader, writer)
			}
		}
		_, err := native.Save(t.Context(), "native", jsontext.Value(`{"n":9007199254740993,"d":1.10}`))
		require.NoError(t, err)
		require.Equal(t, `200 {"n":9007199254740993,"d":1.10}`, sides["dapr"].call("GET", stateOf+"table/native", ""), "daprd reads every digit")

		for _, key := range []string{"by-dapr", "by-facade"} {
			change := func(s *side, etag string) string {
				return s.code("POST", stateOf+"table", `[{"key":"`+key+`","value":1,"etag":"`+etag+`"}]`)
			}
			theirs, ours := sides["dapr"].etag("table", key), sides["facade"].etag("table", key)
			require.Equal(t, theirs, ours, "there is one ETag")
			require.Equal(t, "204", change(sides["facade"], ours))
			require.Equal(t, "409 ERR_STATE_SAVE", change(sides["dapr"], theirs), "daprd sees that the facade wrote")
			entry, err := native.GetWithETag(t.Context(), key)
			require.NoError(t, err)
			require.Equal(t, "204", change(sides["dapr"], sides["dapr"].etag("table", key)))
			_, err = native.TrySave(t.Context(), key, jsontext.Value("2"), entry.ETag)
			require.ErrorIs(t, err, state.ErrConflict, "and the native store that daprd wrote")
			require.Equal(t, "204", sides["dapr"].call("DELETE", stateOf+"table/"+key, ""))
			require.Equal(t, "204", sides["facade"].call("GET", stateOf+"table/"+key, ""), "it is gone")
			_, err = native.Get(t.Context(), key)
			require.ErrorIs(t, err, state.ErrNotFound)
		}
		first := func(s *side) string {
			return s.code("POST", stateOf+"table", `[{"key":"once","value":1,"options":{"concurrency":"first-write"}}]`)
		}
		require.Equal(t, "204", first(sides["facade"]))
		require.Equal(t, "409 ERR_STATE_SAVE", first(sides["dapr"]))
		require.Equal(t, "204", sides["dapr"].call("DELETE", stateOf+"table/once", ""))
		require.Equal(t, "204", first(sides["dapr"]))
		require.Equal(t, "409 ERR_STATE_SAVE", first(sides["facade"]))

		both := `{"operations":[{"operation":"upsert","request":{"key":"t1","value":"a"}},{"operation":"delete","request":{"key":"native"}}]}`
		require.Equal(t, "204", sides["dapr"].call("POST", stateOf+"table/transaction", both))
		require.Equal(t, `200 "a"`, sides["facade"].call("GET", stateOf+"table/t1", ""))
		require.Equal(t, "204", sides["facade"].call("POST", stateOf+"table/transaction", strings.Replace(both, `"a"`, `"b"`, 1)))
		require.Equal(t, `200 "b"`, sides["dapr"].call("GET", stateOf+"table/t1", ""))
		query := sides["facade"].call("POST", "/v1.0-alpha1/state/table/query", `{"filter":{"EQ":{"city":"Ulm"}}}`)
		require.NotContains(t, query, "p1")
		require.Equal(t, "204", sides["dapr"].call("POST", stateOf+"table", `[{"key":"p1","value":{"city":"Ulm"}}]`))
		query = sides["facade"].call("POST", "/v1.0-alpha1/state/table/query", `{"filter":{"EQ":{"city":"Ulm"}}}`)
		require.Contains(t, query, `"key":"p1"`, "the facade finds by its value what daprd wrote")
	})
}

// What stands for itself in base64, as clients over gRPC have it written, is read; what is encrypted or an actor's is refused with the reason, and so is
// a key that the table of Dapr takes for another.
func TestForeignRowsInMySQL(t *testing.T) {
	eachMySQL(t, func(t *testing.T, server *servers.MySQLServer) {
		db, err := sql.Open("mysql", server.DSN)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		_, err = db.ExecContext(t.Context(), "CREATE TABLE state (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL, isbinary BOOLEAN NOT NULL,"+
			" insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"+
			" eTag VARCHAR(36) NOT NULL, expiredate TIMESTAMP NULL) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
		require.NoError(t, err)
		put := func(id, value string, binary bool) {
			_, err := db.ExecContext(t.Context(), "REPLACE INTO state (id, value, isbinary, eTag) VALUES (?, ?, ?, UUID())", id, value, binary)
			require.NoError(t, err)
		}
		put("bytes||k", `"eyJuIjoxLjEwfQ=="`, true)
		put("bytes||plain", `{"n":2}`, false)
		bytes := openMySQLRows(t, server, "bytes||")
		value, err := bytes.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, `{"n":1.10}`, string(value))
		_, err = bytes.Get(t.Context(), "K")
		require.ErrorIs(t, err, state.ErrNotFound, "another key, though the table does not tell them apart")
		_, err = bytes.Save(t.Context(), "K", jsontext.Value("1"))
		require.ErrorIs(t, err, state.ErrInvalid)
		require.ErrorContains(t, err, "utf8mb4_general_ci")
		_, err = bytes.SaveBulk(t.Context(), []state.Item[jsontext.Value]{{Key: "new", Value: jsontext.Value("1")}, {Key: "New", Value: jsontext.Value("2")}})
		require.ErrorIs(t, err, state.ErrInvalid, "of two that are not there yet neither can be made beside the other")
		require.ErrorContains(t, err, "utf8mb4_general_ci")
		_, err = bytes.Save(t.Context(), strings.Repeat("k", 250), jsontext.Value("1"))
		require.ErrorIs(t, err, state.ErrInvalid, "257 characters do not fit")
		n, err := bytes.Len(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, n)

		ciphertext := strings.Repeat("QUJD", 12) + "||name"
		again := strconv.Quote(base64.StdEncoding.EncodeToString([]byte(ciphertext)))
		put("secret||k", strconv.Quote(ciphertext), false)
		_, err = openMySQLRows(t, server, "secret||").Get(t.Context(), "k")
		require.NoError(t, err, "a string that looks so and is no ciphertext")
		put("secret||k", again, true)
		_, err = openMySQLRows(t, server, "secret||").Get(t.Context(), "other")
		require.ErrorIs(t, err, state.ErrInvalid)
		require.ErrorContains(t, err, "primaryEncryptionKey")
		put("bytes||later", again, true)
		_, err = bytes.Get(t.Context(), "later")
		require.ErrorIs(t, err, state.ErrCorrupt)
		require.ErrorContains(t, err, "primaryEncryptionKey")
		put("game||Player||7||hp", "1", false)
		_, err = openMySQLRows(t, server, "game||").Get(t.Context(), "k")
		require.ErrorIs(t, err, state.ErrInvalid)
		require.ErrorContains(t, err, "actor")
		_, err = openMySQLRows(t, server, "own||").Save(t.Context(), "guild||7||hp", jsontext.Value("1"))
		require.NoError(t, err)
		_, err = openMySQLRows(t, server, "own||").Get(t.Context(), "guild||7||hp")
		require.NoError(t, err, "a key of the store's own looks so too")
		_, err = openMySQLRows(t, server, "other||").Get(t.Context(), "k")
		require.ErrorIs(t, err, state.ErrNotFound)
	})
}

// The rows are looked at once for all who wait, each as long as it has time; who gives up does not end the look.
func TestALookAtRowsHoldsNobodyUp(t *testing.T) {
	server := servers.MySQL(t)
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN})
	require.NoError(t, err)
	table := server.Database + ".state"
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "first", Backend: "mysql", KeyPrefix: "first||", TableName: table}, {Name: "rows", Backend: "mysql", KeyPrefix: "app||", TableName: table}},
		[]state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	first, err := state.Open[int](t.Context(), factory, "first")
	require.NoError(t, err)
	_, err = first.Save(t.Context(), "k", 1) // which makes the table
	require.NoError(t, err)
	rows, err := state.Open[int](t.Context(), factory, "rows")
	require.NoError(t, err)

	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "LOCK TABLES state WRITE")
	require.NoError(t, err)
	looks := func() (n int) {
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = ? AND INFO LIKE 'SELECT id FROM%'", server.Database).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = rows.Get(brief, "k") // it begins the look, and gives up
	require.ErrorIs(t, err, state.ErrUnavailable)
	patient := make(chan error, 1)
	go func() { _, err := rows.Get(t.Context(), "k"); patient <- err }()
	require.Eventually(t, func() bool { return looks() == 1 }, wait, wait/1000)
	hurried := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := rows.Get(ctx, "k")
		hurried <- err
	}()
	select {
	case err := <-hurried:
		require.ErrorIs(t, err, state.ErrUnavailable)
	case <-time.After(wait):
		t.Fatal("a caller waits past its deadline for the look of another")
	}
	require.Equal(t, 1, looks(), "there is one look")
	_, err = conn.ExecContext(t.Context(), "UNLOCK TABLES")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	select {
	case err := <-patient:
		require.ErrorIs(t, err, state.ErrNotFound)
	case <-time.After(wait):
		t.Fatal("the look does not end though the table is free")
	}
}

// Components that a native driver cannot take over are refused at start.
func TestMySQLComponentsRefused(t *testing.T) {
	server := servers.MySQL(t)
	for _, c := range []struct{ name, value, says string }{
		{"primaryEncryptionKey", "00", "primaryEncryptionKey"}, {"actorStateStore", "true", "actors"}, {"keyPrefix", "none", "keyPrefix none"}, {"pemPath", "/x", "pemPath"},
	} {
		n := refusedNode(t, mysqlComponent("table", server, c.name, c.value))
		require.Contains(t, n, c.says)
		require.NotContains(t, n, "@tcp", "no address, which may hold a password")
	}
}

// refusedNode is what a node says that does not start.
func refusedNode(t *testing.T, resource string) string {
	t.Helper()
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "c.yaml"), []byte(resource), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), wait) // one that is not refused would go on
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--dapr-listen", "127.0.0.1:0", "--dapr-app-id", "app", "--dapr-resources-path", folder)
	printed, err := cmd.CombinedOutput()
	require.Error(t, err, resource)
	require.Equal(t, 2, cmd.ProcessState.ExitCode(), string(printed))
	return string(printed)
}
