package state_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

func TestSaveGetDelete(t *testing.T) {
	n := start(t, nil)
	for _, store := range []string{"accounts", "auth"} {
		at := `{"storeName":"` + store + `","key":"ada`
		status, _, answer := n.post("/state/get", at+`"}`)
		require.Equal(t, 404, status)
		require.Equal(t, "not_found", answer["code"])

		saved := n.must("/state/save", at+`","value":{"gold":9007199254740993,"rate":1.10,"big":123456789012345678901234567890}}`)
		require.Equal(t, true, saved["success"])
		_, raw, got := n.post("/state/get", at+`"}`)
		require.Contains(t, raw, `"gold":9007199254740993`)
		require.Contains(t, raw, `"rate":1.10`)
		require.Contains(t, raw, `"big":123456789012345678901234567890`)
		require.Equal(t, saved["etag"], got["etag"])
		require.EqualValues(t, 1, got["metadata"].(object)["version"])
		require.NotContains(t, got["metadata"], "expiresAt")

		status, _, answer = n.post("/state/save", at+`","value":1,"options":{"etag":""}}`)
		require.Equal(t, 409, status, "an empty etag creates only")
		require.Equal(t, "conflict", answer["code"])
		second := n.must("/state/save", at+`","value":null,"options":{"etag":"`+saved["etag"].(string)+`","consistency":"eventual"}}`)
		status, _, _ = n.post("/state/save", at+`","value":3,"options":{"etag":"`+saved["etag"].(string)+`"}}`)
		require.Equal(t, 409, status, "an etag is good once")
		_, raw, _ = n.post("/state/get", at+`"}`)
		require.Contains(t, raw, `"value":null`, "null is a value")

		status, _, _ = n.post("/state/delete", at+`","etag":"`+saved["etag"].(string)+`"}`)
		require.Equal(t, 409, status)
		require.Equal(t, true, n.must("/state/delete", at+`","etag":"`+second["etag"].(string)+`"}`)["deleted"])
		status, _, _ = n.post("/state/delete", at+`","etag":"`+second["etag"].(string)+`"}`)
		require.Equal(t, 404, status)
		require.Equal(t, false, n.must("/state/delete", at+`"}`)["deleted"])

		saved = n.must("/state/save", at+`","value":1}`)
		status, _, _ = n.post("/state/delete", at+`","options":{"etag":"stale"}}`)
		require.Equal(t, 409, status, "where /state/save has its etag")
		require.Equal(t, true, n.must("/state/delete", at+`","options":{"etag":"`+saved["etag"].(string)+`"}}`)["deleted"])
	}
}

func TestTTL(t *testing.T) {
	n := start(t, nil)
	expires := func(store, key string) any {
		return n.must("/state/get", `{"storeName":"`+store+`","key":"`+key+`"}`)["metadata"].(object)["expiresAt"]
	}
	n.must("/state/save", `{"storeName":"auth","key":"a","value":1,"options":{"ttl":100}}`)
	first := expires("auth", "a")
	require.NotNil(t, first)
	n.must("/state/save", `{"storeName":"auth","key":"a","value":2}`)
	require.NotNil(t, expires("auth", "a"), "a save without ttl keeps what the key has")
	n.must("/state/save", `{"storeName":"auth","key":"a","value":2,"options":{"ttl":-1}}`)
	require.Nil(t, expires("auth", "a"))
	n.must("/state/save", `{"storeName":"brief","key":"a","value":1}`)
	require.NotNil(t, expires("brief", "a"), "the store's default")
	n.must("/state/save", `{"storeName":"brief","key":"a","value":1,"options":{"ttl":-1}}`)
	require.Nil(t, expires("brief", "a"))
}

func TestBulk(t *testing.T) {
	n := start(t, nil)
	n.must("/state/save", `{"storeName":"accounts","key":"taken","value":1}`)
	results := n.must("/state/bulk-save", `{"storeName":"accounts","items":[
		{"key":"a","value":{"n":1.50}},{"key":"b","value":2,"ttl":60,"etag":""},{"key":"taken","value":3,"etag":""}]}`)["results"].([]any)
	require.Equal(t, true, results[0].(object)["success"])
	require.NotEmpty(t, results[1].(object)["etag"])
	require.Equal(t, false, results[2].(object)["success"])
	require.Equal(t, "conflict", results[2].(object)["code"], "one fails alone, and says why")

	_, raw, got := n.post("/state/bulk-get", `{"storeName":"accounts","keys":["b","absent","a","a"]}`)
	require.Contains(t, raw, `{"n":1.50}`)
	items := got["items"].([]any)
	require.Len(t, items, 4)
	require.Equal(t, object{"key": "absent", "found": false}, items[1])
	require.Equal(t, "a", items[3].(object)["key"])

	exists := n.must("/state/bulk-exists", `{"storeName":"accounts","keys":["absent","a"]}`)["items"].([]any)
	require.Equal(t, []any{object{"key": "absent", "exists": false}, object{"key": "a", "exists": true}}, exists)
	deleted := n.must("/state/bulk-delete", `{"storeName":"accounts","keys":["absent","a"]}`)["results"].([]any)
	require.Equal(t, []any{object{"key": "absent", "deleted": false}, object{"key": "a", "deleted": true}}, deleted)
	require.Empty(t, n.must("/state/bulk-get", `{"storeName":"accounts","keys":[]}`)["items"])
}

// A value that is empty is there all the same.
func TestBulkGetOfEmptyValues(t *testing.T) {
	n := start(t, nil)
	for _, value := range []string{"null", "{}", "[]", `""`, "0", "false"} {
		n.must("/state/save", `{"storeName":"accounts","key":"k","value":`+value+`}`)
		_, raw, _ := n.post("/state/bulk-get", `{"storeName":"accounts","keys":["k"]}`)
		require.Contains(t, raw, `"value":`+value)
	}
}

func TestTransactIsAllOrNothing(t *testing.T) {
	n := start(t, nil)
	one := n.must("/state/save", `{"storeName":"accounts","key":"one","value":1}`)
	status, _, answer := n.post("/state/transact", `{"storeName":"accounts","operations":[
		{"operation":"save","key":"new","value":1,"etag":""},{"operation":"delete","key":"one","etag":"stale"},{"operation":"save","key":"two","value":2,"etag":"none"}]}`)
	require.Equal(t, 409, status)
	require.Equal(t, []any{"one", "two"}, answer["keys"])
	status, _, _ = n.post("/state/get", `{"storeName":"accounts","key":"new"}`)
	require.Equal(t, 404, status)

	results := n.must("/state/transact", `{"storeName":"accounts","operations":[
		{"operation":"save","key":"new","value":1,"etag":""},{"operation":"delete","key":"one","etag":"`+one["etag"].(string)+`"}]}`)["results"].([]any)
	require.Equal(t, "new", results[0].(object)["key"])
	require.NotEmpty(t, results[0].(object)["etag"])
	status, _, _ = n.post("/state/get", `{"storeName":"accounts","key":"one"}`)
	require.Equal(t, 404, status)
}

func TestQuery(t *testing.T) {
	n := start(t, nil)
	for i := range 5 {
		n.must("/state/save", fmt.Sprintf(`{"storeName":"accounts","key":"k%d","value":{"level":%d,"rate":%d.10}}`, i, i, i))
	}
	_, raw, got := n.post("/state/query", `{"storeName":"accounts","filter":{"level":{"$gte":1}},"sort":[{"field":"level","order":"desc"}],"page":1,"pageSize":3}`)
	require.Equal(t, []any{"k1"}, got["keys"])
	require.EqualValues(t, 4, got["totalCount"])
	require.Contains(t, raw, `"rate":1.10`)
	require.EqualValues(t, 1, got["page"])
	require.EqualValues(t, 3, got["pageSize"])
	all := n.must("/state/query", `{"storeName":"accounts","filter":{}}`)
	require.Len(t, all["results"], 5)
	require.EqualValues(t, 100, all["pageSize"])
	none := n.must("/state/query", `{"storeName":"accounts","filter":{"level":77}}`)
	require.Equal(t, []any{}, none["results"])

	status, _, answer := n.post("/state/query", `{"storeName":"auth","filter":{}}`)
	require.Equal(t, 400, status)
	require.Equal(t, "unsupported", answer["code"])
	require.Contains(t, answer["detail"], "memory")
}

// Pages by cursor hold every value once, though values come and go between them; fields cut values, numbers to the digit.
func TestQueryByCursor(t *testing.T) {
	n := start(t, nil)
	for i := range 7 {
		n.must("/state/save", fmt.Sprintf(`{"storeName":"accounts","key":"k%d","value":{"level":%d,"rate":%d.10,"a":[{"x":1,"y":2}]}}`, i, i%3, i))
	}
	const query = `{"storeName":"accounts","filter":{"level":{"$gte":0}},"sort":[{"field":"level","order":"desc"}],"pageSize":3,"fields":["rate","a.x"],"cursor":`
	var keys []any
	cursor := ""
	for {
		_, raw, page := n.post("/state/query", query+`"`+cursor+`"}`)
		require.NotContains(t, page, "totalCount")
		require.Contains(t, raw, `.10,"a":[{"x":1}]}`)
		require.NotContains(t, raw, "level")
		keys = append(keys, page["keys"].([]any)...)
		next, more := page["nextCursor"]
		if !more {
			break
		}
		cursor = next.(string)
		n.must("/state/save", `{"storeName":"accounts","key":"earlier","value":{"level":9,"rate":1.10,"a":[{"x":1}]}}`)
		n.must("/state/delete", `{"storeName":"accounts","key":"k2"}`)
	}
	require.Equal(t, []any{"k2", "k5", "k1", "k4", "k0", "k3", "k6"}, keys)

	for _, bad := range []string{"x", cursor[:len(cursor)-2], cursor + "AA", strings.Repeat("A", 70_000), "' OR 1=1 --"} {
		status, _, answer := n.post("/state/query", query+`"`+bad+`"}`)
		require.Equal(t, 400, status)
		require.Equal(t, "invalid_member", answer["code"])
		require.Equal(t, "cursor", answer["member"])
	}
	for member, rest := range map[string]string{
		"cursor":    `"filter":{},"cursor":"` + cursor + `"`,
		"page":      `"filter":{},"cursor":"","page":1`,
		"fields[1]": `"filter":{},"fields":["a","a..b"]`,
		"fields":    `"filter":{},"fields":[` + strings.Repeat(`"a",`, 100) + `"b"]`,
	} {
		status, _, answer := n.post("/state/query", `{"storeName":"accounts",`+rest+`}`)
		require.Equal(t, 400, status, rest)
		require.Equal(t, member, answer["member"])
	}
}

func TestListStores(t *testing.T) {
	n := start(t, nil)
	n.must("/state/save", `{"storeName":"auth","key":"a","value":1}`)
	for _, body := range []string{"", "{}"} {
		stores := n.must("/state/list-stores", body)["stores"].([]any)
		require.Equal(t, []any{
			object{"name": "accounts", "backend": "sqlite"}, object{"name": "auth", "backend": "memory"},
			object{"name": "brief", "backend": "memory"}, object{"name": "watched", "backend": "memory"},
		}, stores, "internal stores are not listed")
	}
	begin := time.Now()
	stores := n.must("/state/list-stores", `{"includeStats":true}`)["stores"].([]any)
	require.Len(t, stores, 4)
	for i, keys := range []int{0, 1, 0, 0} {
		store := stores[i].(object)
		require.EqualValues(t, keys, store["keyCount"], store["name"])
		at, err := time.Parse(time.RFC3339Nano, store["countedAt"].(string))
		require.NoError(t, err)
		require.WithinRange(t, at, begin, time.Now())
		require.NotContains(t, store, "code")
	}
	require.Empty(t, n.must("/state/list-stores", `{"backendFilter":"redis"}`)["stores"])
}

func TestInternalStoresDoNotExist(t *testing.T) {
	n := start(t, nil)
	for _, path := range []string{"get", "query"} {
		status, _, answer := n.post("/state/"+path, `{"storeName":"hidden","key":"a","filter":{}}`)
		require.Equal(t, 404, status)
		require.Equal(t, "unknown_store", answer["code"])
	}
}

func TestChangesAreTold(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	n := start(t, func(_ context.Context, c state.Changed) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c.Store+" "+c.Operation+" "+c.Key)
	})
	n.must("/state/save", `{"storeName":"auth","key":"a","value":1}`)
	n.must("/state/save", `{"storeName":"watched","key":"a","value":1}`)
	n.must("/state/delete", `{"storeName":"watched","key":"a"}`)
	require.Equal(t, []string{"watched save a", "watched delete a"}, seen)
}

func TestTheGeneratedClientReadsAnswersAndProblems(t *testing.T) {
	n := start(t, nil)
	client, err := stateapi.NewClientWithResponses(n.url, stateapi.WithHTTPClient(n.client))
	require.NoError(t, err)
	saved, err := client.SaveStateWithResponse(t.Context(), stateapi.SaveStateRequest{StoreName: "auth", Key: "a", Value: []byte(`1.50`)})
	require.NoError(t, err)
	require.NotNil(t, saved.JSON200)
	got, err := client.GetStateWithResponse(t.Context(), stateapi.GetStateRequest{StoreName: "auth", Key: "a"})
	require.NoError(t, err)
	require.Equal(t, "1.50", string(got.JSON200.Value))
	missing, err := client.GetStateWithResponse(t.Context(), stateapi.GetStateRequest{StoreName: "auth", Key: strings.Repeat("k", 256)})
	require.NoError(t, err)
	require.Equal(t, "key_too_long", string(missing.ApplicationProblemJSONDefault.Code))
	require.Equal(t, "key", missing.ApplicationProblemJSONDefault.Member)
}
