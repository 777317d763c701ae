package state_test

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/bannou-mesh/bannou/services/host/hosttest"
)

const maxBody = 8 << 20

// endpoints are all of the service's, with each member of their bodies.
var endpoints = []Endpoint{
	{Path: "/state/get", Valid: `{"storeName":"auth","key":"present","options":{"consistency":"eventual"}}`, Required: []string{"storeName", "key"},
		Members: map[string]Kind{"storeName": String, "key": String, "options": Object, "options.consistency": String}},
	{Path: "/state/save", Valid: `{"storeName":"auth","key":"k","value":{"a":1},"options":{"ttl":60,"consistency":"strong"}}`,
		Required: []string{"storeName", "key", "value"},
		Members: map[string]Kind{"storeName": String, "key": String, "value": Any, "options": Object, "options.ttl": Integer,
			"options.consistency": String}},
	{Path: "/state/save", Valid: `{"storeName":"auth","key":"k","value":1,"options":{"etag":"stale"}}`, Status: 409,
		Members: map[string]Kind{"options.etag": String}},
	{Path: "/state/delete", Valid: `{"storeName":"auth","key":"k"}`, Required: []string{"storeName", "key"},
		Members: map[string]Kind{"storeName": String, "key": String}},
	{Path: "/state/delete", Valid: `{"storeName":"auth","key":"present","etag":"stale"}`, Status: 409,
		Members: map[string]Kind{"etag": String}},
	{Path: "/state/query", Valid: `{"storeName":"accounts","filter":{"a":1},"sort":[{"field":"a","order":"asc"}],"page":0,"pageSize":10,"options":{"consistency":"eventual"}}`,
		Required: []string{"storeName", "filter", "sort.field"},
		Members: map[string]Kind{"storeName": String, "filter": Object, "sort": Array, "sort.field": String, "sort.order": String,
			"page": Integer, "pageSize": Integer, "options": Object, "options.consistency": String}},
	{Path: "/state/bulk-get", Valid: `{"storeName":"auth","keys":["a"],"options":{"consistency":"strong"}}`, Required: []string{"storeName", "keys"},
		Members: map[string]Kind{"storeName": String, "keys": Array, "options": Object, "options.consistency": String}},
	{Path: "/state/bulk-exists", Valid: `{"storeName":"auth","keys":["a"],"options":{"consistency":"strong"}}`, Required: []string{"storeName", "keys"},
		Members: map[string]Kind{"storeName": String, "keys": Array, "options": Object, "options.consistency": String}},
	{Path: "/state/bulk-delete", Valid: `{"storeName":"auth","keys":["a"]}`, Required: []string{"storeName", "keys"},
		Members: map[string]Kind{"storeName": String, "keys": Array}},
	{Path: "/state/bulk-save", Valid: `{"storeName":"auth","items":[{"key":"b","value":1,"ttl":60,"etag":"x"}]}`,
		Required: []string{"storeName", "items", "items.key", "items.value"},
		Members: map[string]Kind{"storeName": String, "items": Array, "items.key": String, "items.value": Any,
			"items.ttl": Integer, "items.etag": String}},
	{Path: "/state/transact", Valid: `{"storeName":"auth","operations":[{"operation":"save","key":"t","value":1,"ttl":60}]}`,
		Required: []string{"storeName", "operations", "operations.operation", "operations.key", "operations.value"},
		Members: map[string]Kind{"storeName": String, "operations": Array, "operations.operation": String,
			"operations.key": String, "operations.value": Any, "operations.ttl": Integer}},
	{Path: "/state/list-stores", Valid: `{"backendFilter":"memory","includeStats":true}`,
		Members: map[string]Kind{"backendFilter": String, "includeStats": Boolean}},
}

func bounded() []Endpoint {
	all := append([]Endpoint{}, endpoints...)
	for i := range all {
		all[i].MaxBytes = maxBody
	}
	return all
}

func target(n *node) Target { return Target{URL: n.url, Client: n.client} }

func TestRefusals(t *testing.T) {
	n := start(t, nil)
	n.must("/state/save", `{"storeName":"auth","key":"present","value":1}`)
	Refusals(t, target(n), bounded())
}

func TestRefusalsOfState(t *testing.T) {
	n := start(t, nil)
	long, most := strings.Repeat("k", 256), strings.Repeat("k", 255)
	n.must("/state/save", `{"storeName":"accounts","key":"`+most+`","value":1}`)
	big := `"` + strings.Repeat("v", 4<<20) + `"`
	many := `"` + strings.Repeat(`k","`, 1000) + `k"`
	var items []string
	for i := range 1001 {
		items = append(items, fmt.Sprintf(`{"key":"k%d","value":1,"operation":"save"}`, i))
	}
	tooMany := strings.Join(items, ",")

	for _, c := range []struct {
		path, body   string
		status       int
		code, member string
	}{
		{"get", `{"storeName":"nope","key":"k"}`, 404, "unknown_store", "storeName"},
		{"save", `{"storeName":"nope","key":"k","value":1}`, 404, "unknown_store", "storeName"},
		{"delete", `{"storeName":"nope","key":"k"}`, 404, "unknown_store", "storeName"},
		{"query", `{"storeName":"nope","filter":{}}`, 404, "unknown_store", "storeName"},
		{"bulk-get", `{"storeName":"nope","keys":[]}`, 404, "unknown_store", "storeName"},
		{"bulk-save", `{"storeName":"nope","items":[]}`, 404, "unknown_store", "storeName"},
		{"bulk-delete", `{"storeName":"nope","keys":[]}`, 404, "unknown_store", "storeName"},
		{"bulk-exists", `{"storeName":"nope","keys":[]}`, 404, "unknown_store", "storeName"},
		{"transact", `{"storeName":"nope","operations":[]}`, 404, "unknown_store", "storeName"},

		{"get", `{"storeName":"auth","key":"` + long + `"}`, 400, "key_too_long", "key"},
		{"save", `{"storeName":"auth","key":"` + long + `","value":1}`, 400, "key_too_long", "key"},
		{"delete", `{"storeName":"auth","key":"` + long + `"}`, 400, "key_too_long", "key"},
		{"bulk-get", `{"storeName":"auth","keys":["a","` + long + `"]}`, 400, "key_too_long", "keys[1]"},
		{"bulk-save", `{"storeName":"auth","items":[{"key":"` + long + `","value":1}]}`, 400, "key_too_long", "items[0].key"},
		{"bulk-delete", `{"storeName":"auth","keys":["` + long + `"]}`, 400, "key_too_long", "keys[0]"},
		{"bulk-exists", `{"storeName":"auth","keys":["` + long + `"]}`, 400, "key_too_long", "keys[0]"},
		{"transact", `{"storeName":"auth","operations":[{"operation":"delete","key":"` + long + `"}]}`, 400, "key_too_long", "operations[0].key"},

		{"get", `{"storeName":"auth","key":"a\u0000b"}`, 400, "invalid_member", "key"},
		{"save", `{"storeName":"auth","key":"\u0000","value":1}`, 400, "invalid_member", "key"},
		{"bulk-delete", `{"storeName":"auth","keys":["\u0000"]}`, 400, "invalid_member", "keys[0]"},
		{"bulk-delete", `{"storeName":"auth","keys":["a","a"]}`, 400, "invalid_member", "keys[1]"},
		{"bulk-get", `{"storeName":"auth","keys":["a",""]}`, 400, "missing_member", "keys[1]"},
		{"bulk-get", `{"storeName":"auth","keys":["a",7]}`, 400, "invalid_member", "keys"},
		{"bulk-get", `{"storeName":"auth","keys":[` + many + `]}`, 400, "invalid_member", "keys"},
		{"bulk-save", `{"storeName":"auth","items":[` + tooMany + `]}`, 400, "invalid_member", "items"},
		{"transact", `{"storeName":"auth","operations":[` + tooMany + `]}`, 400, "invalid_member", "operations"},
		{"bulk-save", `{"storeName":"auth","items":[{"key":"a","value":1},{"key":"a","value":2}]}`, 400, "invalid_member", "items[1].key"},
		{"bulk-save", `{"storeName":"auth","items":[{"key":"a","value":1,"ttl":0}]}`, 400, "invalid_member", "items[0].ttl"},
		{"transact", `{"storeName":"auth","operations":[{"operation":"swap","key":"a"}]}`, 400, "invalid_member", "operations[0].operation"},
		{"transact", `{"storeName":"auth","operations":[{"operation":"delete","key":"a","etag":""}]}`, 400, "invalid_member", "operations[0].etag"},

		{"save", `{"storeName":"auth","key":"k","value":` + big + `}`, 413, "value_too_large", "value"},
		{"save", `{"storeName":"auth","key":"k","value":1,"options":{"ttl":0}}`, 400, "invalid_member", "options.ttl"},
		{"save", `{"storeName":"auth","key":"k","value":1,"options":{"ttl":-2}}`, 400, "invalid_member", "options.ttl"},
		{"save", `{"storeName":"auth","key":"k","value":1,"options":{"ttl":9223372036854775807}}`, 400, "invalid_member", "options.ttl"},
		{"save", `{"storeName":"auth","key":"k","value":1,"options":{"consistency":"maybe"}}`, 400, "invalid_member", "options.consistency"},
		{"get", `{"storeName":"auth","key":"k","options":{"consistency":"maybe"}}`, 400, "invalid_member", "options.consistency"},
		{"bulk-get", `{"storeName":"auth","keys":[],"options":{"consistency":"maybe"}}`, 400, "invalid_member", "options.consistency"},
		{"bulk-exists", `{"storeName":"auth","keys":[],"options":{"consistency":"EVENTUAL"}}`, 400, "invalid_member", "options.consistency"},
		{"query", `{"storeName":"accounts","filter":{},"options":{"consistency":"maybe"}}`, 400, "invalid_member", "options.consistency"},
		{"delete", `{"storeName":"auth","key":"k","etag":""}`, 400, "invalid_member", "etag"},
		{"delete", `{"storeName":"auth","key":"k","options":{"etag":""}}`, 400, "invalid_member", "options.etag"},
		{"delete", `{"storeName":"auth","key":"k","etag":"a","options":{"etag":"a"}}`, 400, "invalid_member", "options.etag"},

		{"query", `{"storeName":"auth","filter":{}}`, 400, "unsupported", "storeName"},
		{"query", `{"storeName":"accounts","filter":{"a":{"$near":1}}}`, 400, "unknown_operator", "filter.a"},
		{"query", `{"storeName":"accounts","filter":{"$nor":[]}}`, 400, "unknown_operator", "filter"},
		{"query", `{"storeName":"accounts","filter":{"a.b":{"$in":7}}}`, 400, "invalid_member", "filter.a.b"},
		{"query", `{"storeName":"accounts","filter":{"a":{"$gt":{}}}}`, 400, "invalid_member", "filter.a"},
		{"query", `{"storeName":"accounts","filter":{"a..b":1}}`, 400, "invalid_member", ""},
		{"query", `{"storeName":"accounts","filter":{},"page":-1}`, 400, "invalid_member", "page"},
		{"query", `{"storeName":"accounts","filter":{},"page":2147483647,"pageSize":1000}`, 400, "invalid_member", "page"},
		{"query", `{"storeName":"accounts","filter":{},"pageSize":0}`, 400, "invalid_member", "pageSize"},
		{"query", `{"storeName":"accounts","filter":{},"pageSize":1001}`, 400, "invalid_member", "pageSize"},
		{"query", `{"storeName":"accounts","filter":{},"sort":[{"field":"a","order":"up"}]}`, 400, "invalid_member", "sort[0].order"},
		{"query", `{"storeName":"accounts","filter":{},"sort":[{"field":"a..b"}]}`, 400, "invalid_member", "sort[0].field"},
		{"query", `{"storeName":"accounts","filter":{},"sort":[` + strings.Repeat(`{"field":"a"},`, 8) + `{"field":"a"}]}`, 400, "invalid_member", "sort"},
		{"list-stores", `{"backendFilter":"dapr"}`, 400, "invalid_member", "backendFilter"},
	} {
		target(n).Refuses(t, "/state/"+c.path, c.body, c.status, c.code, c.member)
	}
	target(n).Refuses(t, "/state/query", `{"storeName":"accounts","filter":{"level":{"$near":1}}}`, 400, "unknown_operator", "")
	a := target(n).Post(t, "/state/query", []byte(`{"storeName":"accounts","filter":{"level":{"$near":1}}}`))
	if !strings.Contains(a.Detail, "$near") {
		t.Fatalf("the sentence does not name the operator: %s", a.Detail)
	}
}

func FuzzBodies(f *testing.F) {
	n := start(f, nil)
	Fuzz(f, target(n), bounded())
}
