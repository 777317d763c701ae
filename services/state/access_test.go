package state_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/services/guard"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

const (
	gameToken  = "game-token-0123456789"
	nextToken  = "game-token-which-comes-next"
	webToken   = "web/token+0123456789=="
	otherToken = "other.token_0123456789"
)

// reserved has rules for four of the stores: accounts, which game may read and write, web only read; brief, which web may
// only write and everyone read; watched, which nobody may use.
func reserved(t *testing.T) *guard.Access {
	t.Helper()
	access, err := guard.NewAccess(
		tokens(t, map[string][]string{"game": {gameToken, nextToken}, "web": {webToken}, "other": {otherToken}}), "store",
		map[string]guard.AccessRule{
			"accounts": {Read: []string{"game", "web"}, Write: []string{"game"}},
			"brief":    {Read: []string{guard.Everyone}, Write: []string{"web"}},
			"watched":  {},
		})
	require.NoError(t, err)
	return access
}

func tokens(t *testing.T, byApp map[string][]string) *guard.Tokens {
	t.Helper()
	table, err := guard.NewTokens(byApp)
	require.NoError(t, err)
	return table
}

// operations are all endpoints that work on one store, by what they need.
var operations = map[string][]struct{ path, rest string }{
	"read": {
		{"get", `"key":"k"`}, {"bulk-get", `"keys":["k"]`}, {"bulk-exists", `"keys":["k"]`}, {"query", `"filter":{}`},
		{"get", `"key":"k","options":{"consistency":"eventual"}`}, {"query", `"filter":{},"cursor":""`},
	},
	"write": {
		{"save", `"key":"k","value":1`}, {"save", `"key":"k","value":1,"options":{"etag":"stale"}`}, {"delete", `"key":"other"`},
		{"bulk-save", `"items":[{"key":"k","value":1}]`}, {"bulk-delete", `"keys":["other"]`},
		{"transact", `"operations":[{"operation":"save","key":"k","value":1}]`},
	},
}

// Every endpoint asks for the token of an app that may, and says no without a word of the token.
func TestStoresAreReservedForApps(t *testing.T) {
	n := startWith(t, statesvc.Config{Access: reserved(t)}, nil)
	n.as(gameToken).must("/state/save", `{"storeName":"accounts","key":"k","value":"what nobody else sees"}`)
	basic, double := *n, *n
	basic.authorization, double.authorization = "Basic "+gameToken, "Bearer "+gameToken+" "+webToken
	for operation, calls := range operations {
		for _, c := range calls {
			path, body := "/state/"+c.path, `{"storeName":"accounts",`+c.rest+`}`
			for name, r := range map[string]struct {
				from      *node
				status    int
				code      string
				challenge string
			}{
				"no token":           {n, 401, "unauthorized", `Bearer realm="bannou"`},
				"a wrong token":      {n.as("wrong-token-0123456789"), 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"a token and more":   {n.as(gameToken + "x"), 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"a token cut short":  {n.as(gameToken[:len(gameToken)-1]), 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"an empty token":     {n.as(""), 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"two tokens":         {&double, 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"another scheme":     {&basic, 401, "unauthorized", `Bearer realm="bannou", error="invalid_token"`},
				"another app's":      {n.as(otherToken), 403, "forbidden", ""},
				"that of one reader": {n.as(webToken), map[string]int{"read": 200, "write": 403}[operation], "forbidden", ""},
				"the right one":      {n.as(gameToken), 200, "", ""},
				"its next one":       {n.as(nextToken), 200, "", ""},
			} {
				response := r.from.send(path, body)
				require.NoError(t, response.Body.Close())
				require.Equal(t, r.challenge, response.Header.Get("WWW-Authenticate"), "%s, %s", path, name)
				status, text, answer := r.from.post(path, body)
				if strings.Contains(c.rest, "stale") && r.status == 200 {
					r.status, r.code = 409, "conflict"
				}
				require.Equal(t, r.status, status, "%s, %s: %s", path, name, text)
				if status == 200 {
					continue
				}
				require.Equal(t, r.code, answer["code"])
				for _, secret := range []string{gameToken[:8], webToken, otherToken, "wrong-token", "nobody else", ` "auth`, "brief", "watched", "hidden"} {
					require.NotContains(t, strings.ReplaceAll(text, `\"`, `"`), secret, "%s, %s", path, name)
				}
				if status == 401 && r.challenge == `Bearer realm="bannou"` || status == 403 {
					require.Contains(t, answer["detail"], `store "accounts"`)
					require.Contains(t, answer["detail"], operation)
				}
			}
		}
	}
	require.EqualValues(t, 1, n.as(webToken).must("/state/get", `{"storeName":"accounts","key":"k"}`)["value"])
}

// A store without a rule asks nothing; one that everyone may read asks for a token to write; an empty rule closes a store.
func TestRulesOfOtherStores(t *testing.T) {
	n := startWith(t, statesvc.Config{Access: reserved(t)}, nil)
	for operation, calls := range operations {
		for _, c := range calls {
			if c.path == "query" || strings.Contains(c.rest, "stale") {
				continue
			}
			call := func(from *node, store string) int {
				status, _, _ := from.post("/state/"+c.path, `{"storeName":"`+store+`",`+c.rest+`}`)
				if status == 404 {
					return 200 // the key is not there: it was looked for
				}
				return status
			}
			for _, from := range []*node{n, n.as("wrong-token-0123456789"), n.as(otherToken)} {
				require.Equal(t, 200, call(from, "auth"), c.path)
				if operation == "read" {
					require.Equal(t, 200, call(from, "brief"), c.path)
				} else {
					require.Contains(t, []int{401, 403}, call(from, "brief"), c.path)
				}
			}
			require.Equal(t, 200, call(n.as(webToken), "brief"), c.path)
			require.Equal(t, 401, call(n, "watched"), c.path)
			require.Equal(t, 403, call(n.as(gameToken), "watched"), c.path)
		}
	}
	status, _, answer := n.post("/state/get", `{"storeName":"hidden","key":"k"}`)
	require.Equal(t, 404, status)
	require.Equal(t, "unknown_store", answer["code"])
}

func TestListStoresShowsWhatTheCallerMayUse(t *testing.T) {
	n := startWith(t, statesvc.Config{Access: reserved(t)}, nil)
	n.as(gameToken).must("/state/save", `{"storeName":"accounts","key":"k","value":1}`)
	list := func(from *node) map[string]object {
		stores := map[string]object{}
		for _, s := range from.must("/state/list-stores", `{"includeStats":true}`)["stores"].([]any) {
			stores[s.(object)["name"].(string)] = s.(object)
		}
		return stores
	}
	for _, c := range []struct {
		from *node
		want []string
	}{
		{n, []string{"auth", "brief"}}, {n.as(otherToken), []string{"auth", "brief"}},
		{n.as(webToken), []string{"accounts", "auth", "brief"}}, {n.as(gameToken), []string{"accounts", "auth", "brief"}},
	} {
		stores := list(c.from)
		require.Equal(t, c.want, slices.Sorted(maps.Keys(stores)))
		for _, s := range stores {
			require.Contains(t, s, "keyCount")
		}
	}
	response := n.as("wrong-token-0123456789").send("/state/list-stores", "")
	require.NoError(t, response.Body.Close())
	require.Equal(t, 401, response.StatusCode)
	require.NotEmpty(t, response.Header.Get("WWW-Authenticate"))

	writer, err := guard.NewAccess(tokens(t, map[string][]string{"web": {webToken}}), "store", map[string]guard.AccessRule{"accounts": {Write: []string{"web"}}})
	require.NoError(t, err)
	n = startWith(t, statesvc.Config{Access: writer}, nil)
	accounts := list(n.as(webToken))["accounts"]
	require.NotContains(t, accounts, "keyCount", "to count is to read")
	require.Equal(t, "forbidden", accounts["code"])
}

func TestRefusalsAreCounted(t *testing.T) {
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	n := startWith(t, statesvc.Config{Access: reserved(t), MeterProvider: provider}, nil)
	n.post("/state/get", `{"storeName":"accounts","key":"k"}`)
	n.as("wrong-token-0123456789").post("/state/save", `{"storeName":"accounts","key":"k","value":1}`)
	n.as(webToken).post("/state/save", `{"storeName":"accounts","key":"k","value":1}`)
	n.as(webToken).post("/state/delete", `{"storeName":"accounts","key":"k"}`)
	n.as("wrong-token-0123456789").post("/state/list-stores", `{}`)
	n.as(gameToken).must("/state/save", `{"storeName":"accounts","key":"k","value":1}`)

	var collected metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &collected))
	counts := map[string]int64{}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "bannou.state.refusals" {
				continue
			}
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				labels := []string{}
				for _, name := range []string{"store", "operation", "reason"} {
					value, _ := point.Attributes.Value(attribute.Key(name))
					labels = append(labels, value.AsString())
				}
				counts[strings.Join(labels, " ")] = point.Value
			}
		}
	}
	require.Equal(t, map[string]int64{
		"accounts read no_token": 1, "accounts write wrong_token": 1, "accounts write forbidden": 2, " list wrong_token": 1,
	}, counts)
}

func TestAccessIsCheckedWhenItIsMade(t *testing.T) {
	_, err := guard.NewAccess(tokens(t, map[string][]string{"game": {gameToken}}), "store", map[string]guard.AccessRule{"scores": {Write: []string{"web"}}})
	for _, says := range []string{`"scores"`, "access.write", `"web"`} {
		require.ErrorContains(t, err, says)
	}
}
