package accounts_test

import (
	"strings"
	"testing"

	"github.com/bannou-mesh/bannou/services/accounts"
	. "github.com/bannou-mesh/bannou/services/host/hosttest"
)

const (
	nobody  = "00000000-0000-4000-8000-000000000000"
	maxBody = 64 << 10
)

// endpoints are all of the service's, with each member of their bodies.
var endpoints = []Endpoint{
	{Path: "/accounts/register", Valid: `{"accountId":"` + nobody + `","email":"a@example.org","displayName":"a","roles":["user"]}`,
		Members: map[string]Kind{"accountId": String, "email": String, "displayName": String, "roles": Array}},
	{Path: "/accounts/get", Valid: `{"accountId":"` + nobody + `"}`, Required: []string{"accountId"}, Members: map[string]Kind{"accountId": String}},
	{Path: "/accounts/by-email", Valid: `{"email":"a@example.org"}`, Required: []string{"email"}, Members: map[string]Kind{"email": String}},
	{Path: "/accounts/update", Valid: `{"accountId":"` + nobody + `","displayName":"b","version":0}`, Required: []string{"accountId"},
		Members: map[string]Kind{"accountId": String, "displayName": String, "version": Integer}},
	{Path: "/accounts/change-email", Valid: `{"accountId":"` + nobody + `","email":"c@example.org","version":0}`, Required: []string{"accountId", "email"},
		Members: map[string]Kind{"accountId": String, "email": String, "version": Integer}},
	{Path: "/accounts/set-roles", Valid: `{"accountId":"` + nobody + `","roles":["admin"],"version":0}`, Required: []string{"accountId", "roles"},
		Members: map[string]Kind{"accountId": String, "roles": Array, "version": Integer}},
	{Path: "/accounts/list", Valid: `{"search":"a","role":"user","pageSize":10}`,
		Members: map[string]Kind{"search": String, "role": String, "pageSize": Integer}},
	{Path: "/accounts/delete", Valid: `{"accountId":"` + nobody + `","reason":"x"}`, Required: []string{"accountId"},
		Members: map[string]Kind{"accountId": String, "reason": String}},
	{Path: "/accounts/erase", Valid: `{"accountId":"` + nobody + `"}`, Required: []string{"accountId"}, Members: map[string]Kind{"accountId": String}},
}

func TestRefusals(t *testing.T) {
	n := start(t, accounts.Config{})
	target := Target{URL: n.url, Client: n.client}
	all := append([]Endpoint{}, endpoints...)
	for i := range all {
		all[i].MaxBytes = maxBody
	}
	Refusals(t, target, all)
	for _, c := range []struct{ path, body, member string }{
		{"/accounts/register", `{"email":"Ada <a@example.org>"}`, "email"},
		{"/accounts/register", `{"email":"no address"}`, "email"},
		{"/accounts/register", `{"email":"` + strings.Repeat("a", 250) + `@example.org"}`, "email"},
		{"/accounts/register", `{"displayName":"a\u0000"}`, "displayName"},
		{"/accounts/register", `{"accountId":"x"}`, "accountId"},
		{"/accounts/register", `{"roles":["Admin"]}`, "roles[0]"},
		{"/accounts/get", `{"accountId":"../x"}`, "accountId"},
		{"/accounts/list", `{"pageSize":1001}`, "pageSize"},
	} {
		target.Refuses(t, c.path, c.body, 400, "invalid_member", c.member)
	}
}
