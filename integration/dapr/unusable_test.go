package dapr_test

import (
	"bytes"
	"database/sql"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// cipher is a component's key, which the sidecar has from its environment.
const cipher = "BANNOU_TEST_CIPHER"

// encrypting is a component that encrypts what it keeps.
func encrypting(component string) string {
	return component + "  - name: primaryEncryptionKey\n    secretKeyRef:\n      name: " + cipher + "\n      key: " + cipher + "\nauth:\n  secretStore: variables\n"
}

// What a daprd has encrypted nothing native reads or writes over: the plan says so before anybody switches, a switch is refused, and so is the store.
func TestEncryptedRowsAreRefused(t *testing.T) {
	set := servers.All(t)
	for _, c := range []struct{ kind, component, place string }{
		{"redis", redisComponent("accounts", "state.redis", set.Redis), `{backend: redis, keyPrefix: "app||"}`},
		{"mysql", mysqlComponent("accounts", set.MySQL), `{backend: mysql, keyPrefix: "app||", tableName: ` + set.MySQL.Database + `.state}`},
	} {
		t.Run(c.kind, func(t *testing.T) {
			d := servers.NewDaprd(t, servers.DaprdOptions{
				Resources: []string{encrypting(c.component), component("variables", "secretstores.local.env")}, Env: []string{cipher + "=" + strings.Repeat("a1", 32)},
			})
			response, err := http.Post(d.URL+"/v1.0/state/accounts", "application/json", strings.NewReader(`[{"key":"ada","value":{"secret":1}}]`))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusNoContent, response.StatusCode)
			node := newMover(t, set, d, "state:\n  stores:\n    accounts: "+c.place+"\n")

			plan, done := node.migrate(t, "plan")
			require.True(t, done, plan)
			require.Contains(t, plan, "is encrypted by Dapr: its component has a primaryEncryptionKey")
			refused, done := node.migrate(t, "switch", "store", "accounts")
			require.False(t, done, refused)
			require.Contains(t, refused, "is encrypted by Dapr")
		})
	}

	// Forced to it, the store is refused before anything is written over.
	accounts := openRedisRows(t, set.Redis, "app||")
	_, err := accounts.Save(t.Context(), "ada", jsontext.Value("1"))
	require.ErrorIs(t, err, state.ErrInvalid)
	require.ErrorContains(t, err, "primaryEncryptionKey")
	client := redisClient(t, set.Redis)
	value, err := client.HGet(t.Context(), "app||ada", "data").Result()
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(value, "||"+cipher), value)

	// One that comes later is refused when it is read.
	later := openRedisRows(t, set.Redis, "later||")
	_, err = later.Save(t.Context(), "plain", jsontext.Value(`"QUJD||name"`))
	require.NoError(t, err, "a string that looks so and is no ciphertext")
	require.NoError(t, client.HSet(t.Context(), "later||ada", "data", value, "version", 1).Err())
	_, err = later.Get(t.Context(), "ada")
	require.ErrorIs(t, err, state.ErrCorrupt)
	require.ErrorContains(t, err, "primaryEncryptionKey")
	_, err = later.Get(t.Context(), "plain")
	require.NoError(t, err)
}

// Rows of actors are found too, also while nobody has said where the store would be natively, and those of other apps are not.
func TestRowsOfActorsAreRefused(t *testing.T) {
	set := servers.All(t)
	d := servers.NewDaprd(t, servers.DaprdOptions{Resources: []string{redisComponent("accounts", "state.redis", set.Redis)}})
	client := redisClient(t, set.Redis)
	require.NoError(t, client.HSet(t.Context(), "others||Player||7||hp", "data", "1", "version", 1).Err())
	named := newMover(t, set, d, "state:\n  stores:\n    accounts: {backend: redis, keyPrefix: \"app||\"}\n")
	plan, done := named.migrate(t, "plan")
	require.True(t, done, plan)
	require.NotContains(t, plan, "actor")
	refused, done := named.migrate(t, "switch", "store", "accounts")
	require.False(t, done, refused)
	require.Contains(t, refused, "the store has no mirror")

	require.NoError(t, client.HSet(t.Context(), "app||Player||7||hp", "data", "1", "version", 1).Err())
	plan, done = named.migrate(t, "plan")
	require.True(t, done, plan)
	require.Contains(t, plan, `"app||Player||7||hp" is an actor's`)
	refused, done = named.migrate(t, "switch", "store", "accounts")
	require.False(t, done, refused)
	require.Contains(t, refused, "Bannou has no actors")
	plan, done = newMover(t, set, d, "").migrate(t, "plan")
	require.True(t, done, plan)
	require.Contains(t, plan, `"app||Player||7||hp" is an actor's`)

	_, err := openRedisRows(t, set.Redis, "app||").Get(t.Context(), "ada")
	require.ErrorIs(t, err, state.ErrInvalid)
	require.ErrorContains(t, err, "actor")
}

func redisClient(t *testing.T, server *servers.RedisServer) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// openRedisRows is a native store on Dapr's rows.
func openRedisRows(t *testing.T, server *servers.RedisServer, prefix string) *state.Store[jsontext.Value] {
	t.Helper()
	driver, err := redisstate.New(redisstate.Config{URLs: []string{server.URL}})
	require.NoError(t, err)
	f, err := state.NewFactory([]state.StoreConfig{{Name: "rows", Backend: "redis", KeyPrefix: prefix}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	s, err := state.Open[jsontext.Value](t.Context(), f, "rows")
	require.NoError(t, err)
	return s
}

// A mover is a node whose stores are on a sidecar, and are to be moved.
type mover struct{ url string }

func newMover(t *testing.T, set servers.Set, d *servers.DaprdServer, settings string) mover {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte(settings), 0o600))
	listen := freeAddress(t)
	cmd := exec.Command(binary, "serve", "--listen", listen, "--data-dir", t.TempDir(), "--config", file, "--app-id", "app", "--services", "state,mesh",
		"--state-redis-url", set.Redis.URL, "--state-mysql-dsn", set.MySQL.DSN, "--log-level", "warn")
	cmd.Env = append(os.Environ(), "BANNOU_DAPR_ENABLED=true", "BANNOU_USE_NATIVE_MESSAGING=true", "BANNOU_USE_NATIVE_MESH=true", "DAPR_HTTP_PORT="+strconv.Itoa(d.HTTPPort))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the node:\n%s", log.String())
		}
	})
	s := &side{t: t}
	require.Eventually(t, func() bool { return s.answers("http://"+listen+"/readyz", http.StatusOK) }, wait, wait/1000)
	return mover{"http://" + listen}
}

// migrate runs `bannou migrate` against the node.
func (m mover) migrate(t *testing.T, args ...string) (printed string, done bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, append(append([]string{"migrate"}, args...), "--node", m.url)...).CombinedOutput()
	return string(out), err == nil
}

// A store is ready while the rows that it is compared with cannot be read: callers do not notice.
func TestRowsThatAMirrorCannotReadLeaveTheirServerReady(t *testing.T) {
	server := servers.MySQL(t)
	_, err := openMySQLRows(t, server, "app||").Save(t.Context(), "ada", jsontext.Value("1")) // which makes the table
	require.NoError(t, err)
	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), "INSERT INTO state (id, value, isbinary, eTag) VALUES ('app||Player||7||hp', '1', FALSE, UUID())")
	require.NoError(t, err)

	there, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, there.Close()) })
	place := state.StoreConfig{Name: "accounts", Backend: "mysql", KeyPrefix: "app||", TableName: server.Database + ".state"}
	ledger := mirror.NewLedger()
	here, err := mirror.Wrap(memorystate.New(), mirror.Config{Ledger: ledger, To: func(state.StoreConfig) (mirror.Counterpart, bool) {
		return mirror.Counterpart{Driver: there, Store: place}, true
	}})
	require.NoError(t, err)
	f, err := state.NewFactory([]state.StoreConfig{{Name: "accounts", Backend: "memory"}}, []state.Driver{here}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	s, err := state.Open[jsontext.Value](t.Context(), f, "accounts")
	require.NoError(t, err)
	_, err = s.Get(t.Context(), "ada")
	require.ErrorIs(t, err, state.ErrNotFound)
	require.Eventually(t, func() bool {
		r, _ := ledger.Report("accounts", time.Hour)
		return r.LastFailure == state.ErrInvalid.Error()
	}, wait, wait/1000)
	require.NoError(t, there.Ready(t.Context()))

	_, err = there.Open(t.Context(), place) // for callers it is not
	require.NoError(t, err)
	require.ErrorContains(t, there.Ready(t.Context()), "actor")
}
