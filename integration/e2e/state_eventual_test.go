package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// Reads over HTTP that permit it come from the replica: while that stands still they miss what the others see.
func TestEventualReadsComeFromTheReplica(t *testing.T) {
	mysql := servers.NewMySQLReplication(t, servers.MySQLOptions{})
	n := startNode(t, "--state-mysql-dsn", mysql.Primary.DSN, "--state-mysql-replica-dsn", mysql.Replica.DSN)
	s := direct(n.url)
	save := func(key string) {
		t.Helper()
		s.must(t, "state/save", object{"storeName": "accounts", "key": key, "value": object{"n": 1}})
	}
	// found asks each endpoint that reads how many of the two keys there are.
	found := func(consistency string) map[string]int {
		t.Helper()
		options := object{"consistency": consistency}
		count := map[string]int{}
		for _, key := range []string{"old", "new"} {
			if status, _ := s.call(t, "state/get", object{"storeName": "accounts", "key": key, "options": options}); status == 200 {
				count["get"]++
			}
		}
		keys := object{"storeName": "accounts", "keys": []string{"old", "new"}, "options": options}
		for _, item := range s.must(t, "state/bulk-get", keys)["items"].([]any) {
			if item.(object)["found"] == true {
				count["bulk-get"]++
			}
		}
		for _, item := range s.must(t, "state/bulk-exists", keys)["items"].([]any) {
			if item.(object)["exists"] == true {
				count["bulk-exists"]++
			}
		}
		for name, query := range map[string]object{"query": {}, "query by cursor": {"cursor": ""}} {
			query["storeName"], query["filter"], query["options"] = "accounts", object{"n": 1}, options
			count[name] = len(s.must(t, "state/query", query)["results"].([]any))
		}
		return count
	}

	save("old")
	require.NoError(t, mysql.CatchUp(t.Context()))
	require.NoError(t, mysql.Hold(t.Context()))
	save("new")

	all := func(n int) map[string]int {
		return map[string]int{"get": n, "bulk-get": n, "bulk-exists": n, "query": n, "query by cursor": n}
	}
	require.Equal(t, all(2), found("strong"))
	require.Equal(t, all(1), found("eventual"))
	require.NoError(t, mysql.Follow(t.Context()))
	require.NoError(t, mysql.CatchUp(t.Context()))
	require.Equal(t, all(2), found("eventual"))
}
