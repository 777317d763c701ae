package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who plays: an account is registered, logs in, gets a role and with it what the role may call, and is gone: on one node that has everything
// in its process, and on two that share servers, each asked in turn.
func TestAccountsAndSessions(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		n := startNode(t)
		accountsAndSessions(t, n, n)
		require.Zero(t, n.stop(t))
	})
	t.Run("servers", func(t *testing.T) {
		args := realServers(t)
		first, second := startNode(t, args...), startNode(t, args...)
		accountsAndSessions(t, first, second)

		s := logIn(t, first, "ada@example.net", "a new password")
		first.kill()
		require.Equal(t, http.StatusOK, validate(t, second, s), "what one node signed, another verifies, also when the first is dead")
		third := startNode(t, args...)
		require.Equal(t, http.StatusOK, validate(t, third, s), "keys and sessions outlive the nodes")
	})
}

// a login is what /auth/login answers.
type login struct{ AccountID, SessionID, AccessToken, RefreshToken string }

func loginFrom(t *testing.T, o object) (l login) {
	t.Helper()
	b, err := json.Marshal(o)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &l))
	require.NotEmpty(t, l.AccessToken)
	return l
}

func logIn(t *testing.T, n *node, email, password string) login {
	t.Helper()
	status, answer := postAs(t, http.DefaultClient, n.url+"/auth/login", object{"email": email, "password": password})
	require.Equal(t, http.StatusOK, status, "%v", answer)
	return loginFrom(t, answer)
}

func validate(t *testing.T, n *node, l login) int {
	t.Helper()
	status, _ := postAs(t, http.DefaultClient, n.url+"/auth/validate", object{"accessToken": l.AccessToken})
	return status
}

func accountsAndSessions(t *testing.T, here, there *node) {
	post := func(n *node, path string, body object) (int, object) {
		t.Helper()
		return postAs(t, http.DefaultClient, n.url+path, body)
	}
	must := func(n *node, path string, body object) object {
		t.Helper()
		status, answer := post(n, path, body)
		require.Equal(t, http.StatusOK, status, "%s: %v", path, answer)
		return answer
	}
	mayCall := func(l login, service, endpoint string, want bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, answer := post(there, "/permissions/capabilities/get", object{"sessionId": l.SessionID})
			all, _ := answer["capabilities"].(object)
			endpoints, _ := all[service].([]any)
			found := false
			for _, e := range endpoints {
				found = found || e == endpoint
			}
			return found == want
		}, patience, 5*time.Millisecond, "%s %s", service, endpoint)
	}

	const password = "correct horse battery"
	first := loginFrom(t, must(here, "/auth/register", object{"email": "ada@example.org", "password": password, "displayName": "Ada"}))
	status, answer := post(there, "/auth/register", object{"email": "ADA@example.org", "password": password})
	require.Equal(t, []any{http.StatusConflict, "email"}, []any{status, answer["member"]})
	require.Equal(t, http.StatusOK, validate(t, there, first))
	mayCall(first, "auth", "POST /auth/sessions/list", true)
	mayCall(first, "accounts", "POST /accounts/list", false)

	must(here, "/accounts/set-roles", object{"accountId": first.AccountID, "roles": []string{"admin", "user"}})
	mayCall(first, "accounts", "POST /accounts/list", true)
	must(here, "/accounts/set-roles", object{"accountId": first.AccountID, "roles": []string{"user"}})
	mayCall(first, "accounts", "POST /accounts/list", false)

	second := logIn(t, there, "ada@example.org", password)
	must(there, "/auth/logout", object{"refreshToken": second.RefreshToken})
	require.Equal(t, http.StatusUnauthorized, validate(t, here, second), "refused at once, on every node")
	next := loginFrom(t, must(there, "/auth/refresh", object{"refreshToken": first.RefreshToken}))
	require.Equal(t, http.StatusOK, validate(t, here, next))
	must(there, "/accounts/delete", object{"accountId": first.AccountID})
	require.Eventually(t, func() bool { return validate(t, here, next) == http.StatusUnauthorized }, patience, 5*time.Millisecond)
	status, _ = post(here, "/auth/refresh", object{"refreshToken": next.RefreshToken})
	require.Equal(t, http.StatusUnauthorized, status)
	require.Eventually(t, func() bool {
		status, _ := post(here, "/permissions/capabilities/get", object{"sessionId": first.SessionID})
		return status == http.StatusNotFound
	}, patience, 5*time.Millisecond)
	status, _ = post(here, "/accounts/by-email", object{"email": "ada@example.org"})
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, object{"erased": true}, must(here, "/accounts/erase", object{"accountId": first.AccountID}))

	// The address is free, and the next one's.
	must(here, "/auth/register", object{"email": "ada@example.org", "password": password})
	must(here, "/auth/register", object{"email": "ada@example.net", "password": "a new password"})
	for _, store := range []string{"auth-credentials", "auth-sessions", "auth-keys", "accounts-list", "permissions-services", "permissions-sessions"} {
		status, answer := post(here, "/state/get", object{"storeName": store, "key": "x"})
		require.Equal(t, []any{http.StatusNotFound, "unknown_store"}, []any{status, answer["code"]}, "the state service shows nobody %s", store)
	}
	for _, n := range []*node{here, there} {
		for _, secret := range []string{password, first.AccessToken, first.RefreshToken, next.AccessToken, next.RefreshToken} {
			require.NotContains(t, n.log.String(), secret, "a secret is in the log")
		}
	}
}
