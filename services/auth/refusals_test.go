package auth_test

import (
	"testing"

	"github.com/bannou-mesh/bannou/services/auth"
	. "github.com/bannou-mesh/bannou/services/host/hosttest"
)

// endpoints are those that ask for no token in the header, with each member of their bodies.
var endpoints = []Endpoint{
	{Path: "/auth/login", Valid: `{"email":"x@example.org","password":"wrong password","device":"d"}`, Status: 401, Required: []string{"email", "password"},
		Members: map[string]Kind{"email": String, "password": String, "device": String}},
	{Path: "/auth/register", Valid: `{"email":"ada@example.org","password":"another password","displayName":"a","device":"d"}`, Status: 409, Required: []string{"email", "password"},
		Members: map[string]Kind{"email": String, "password": String, "displayName": String, "device": String}},
	{Path: "/auth/validate", Valid: `{"accessToken":"x"}`, Status: 401, Required: []string{"accessToken"}, Members: map[string]Kind{"accessToken": String}},
	{Path: "/auth/refresh", Valid: `{"refreshToken":"x"}`, Status: 401, Required: []string{"refreshToken"}, Members: map[string]Kind{"refreshToken": String}},
	{Path: "/auth/logout", Valid: `{"refreshToken":"x","allSessions":true}`, Status: 401, Members: map[string]Kind{"refreshToken": String, "allSessions": Boolean}},
	{Path: "/auth/sessions/list", Valid: `{}`, Status: 401},
	{Path: "/auth/sessions/terminate", Valid: `{"sessionId":"x"}`, Status: 401, Required: []string{"sessionId"}, Members: map[string]Kind{"sessionId": String}},
	{Path: "/auth/password/change", Valid: `{"currentPassword":"x","newPassword":"another password"}`, Status: 401, Required: []string{"currentPassword", "newPassword"},
		Members: map[string]Kind{"currentPassword": String, "newPassword": String}},
	{Path: "/auth/password/request-reset", Valid: `{"email":"x@example.org"}`, Required: []string{"email"}, Members: map[string]Kind{"email": String}},
	{Path: "/auth/password/confirm-reset", Valid: `{"token":"x","newPassword":"another password"}`, Status: 401, Required: []string{"token", "newPassword"},
		Members: map[string]Kind{"token": String, "newPassword": String}},
}

func TestRefusals(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{PerAccount: 1000, PerAddress: 10_000}})
	n.register("ada@example.org")
	all := append([]Endpoint{}, endpoints...)
	for i := range all {
		all[i].MaxBytes = 64 << 10
	}
	Refusals(t, Target{URL: n.url, Client: n.client}, all)
}
