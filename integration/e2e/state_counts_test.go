package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A backend that hangs does not hold up the listing of stores: those on others are counted, its own say why they are not.
func TestListStoresBesideABackendThatHangs(t *testing.T) {
	redis, mysql := servers.NewRedis(t, servers.RedisOptions{}), servers.NewMySQL(t, servers.MySQLOptions{})
	n := startNode(t, "--state-redis-url", redis.URL, "--state-mysql-dsn", mysql.DSN)
	s := direct(n.url)
	for i := range 3 {
		s.must(t, "state/save", object{"storeName": "accounts", "key": fmt.Sprint(i), "value": i})
		s.must(t, "state/save", object{"storeName": "auth", "key": fmt.Sprint(i), "value": i})
	}
	list := func(s suite) map[string]object {
		stores := map[string]object{}
		for tries, took := 0, time.Hour; took > 3*time.Second; tries++ {
			require.Less(t, tries, 3, "it waits for the backend that hangs: once may be the machine's doing")
			begin := time.Now()
			for _, store := range s.must(t, "state/list-stores", object{"includeStats": true})["stores"].([]any) {
				stores[store.(object)["name"].(string)] = store.(object)
			}
			took = time.Since(begin)
		}
		return stores
	}
	count := func(store object) string { return fmt.Sprint(store["keyCount"]) }

	require.NoError(t, redis.Pause())
	stores := list(s)
	require.Equal(t, "3", count(stores["accounts"]))
	require.NotContains(t, stores["auth"], "keyCount")
	require.Contains(t, []any{"timeout", "unavailable"}, stores["auth"]["code"])
	require.NotEmpty(t, stores["auth"]["detail"])
	out, errs, code := run(t, "stores", "--count", "--backend", "redis", "--node", n.url)
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "? the ")

	require.NoError(t, redis.Resume())
	require.Eventually(t, func() bool { return count(list(s)["auth"]) == "3" }, patience, 50*time.Millisecond)
	require.NotContains(t, list(s)["auth"], "code")

	// What was counted before is told, and that there is no newer count.
	s = direct(startNode(t, "--state-redis-url", redis.URL, "--state-mysql-dsn", mysql.DSN).url)
	require.Equal(t, "3", count(list(s)["auth"]))
	require.NoError(t, redis.Pause())
	require.Eventually(t, func() bool { return list(s)["auth"]["code"] != nil }, patience, 50*time.Millisecond)
	stores = list(s)
	require.Equal(t, "3", count(stores["auth"]))
	require.NotEmpty(t, stores["auth"]["countedAt"])
	require.NoError(t, redis.Resume())
}
