package compose

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who plays: an account is registered and logs in, gets a role and with it what the role may call, and is gone. Every request goes the way that
// callers' do; in the split suite each service, and what it tells the others, is in containers of its own.
func TestPlayers(t *testing.T) {
	s := newStack(t)
	l := &load{stack: s}
	must := func(service, method string, body object) object {
		t.Helper()
		code, answer := l.post(t.Context(), service, service+"/"+method, body)
		require.Equal(t, http.StatusOK, code, "%s/%s: %v", service, method, answer)
		return answer
	}
	email := "ada-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "@example.org"
	const password = "correct horse battery"
	session := must("auth", "register", object{"email": email, "password": password, "displayName": "Ada"})
	account := session["accountId"]
	code, answer := l.post(t.Context(), "auth", "auth/login", object{"email": email, "password": "another"})
	require.Equal(t, http.StatusUnauthorized, code, "%v", answer)
	session = must("auth", "login", object{"email": email, "password": password})
	must("auth", "validate", object{"accessToken": session["accessToken"]})

	mayList := func() bool {
		_, answer := l.post(t.Context(), "permissions", "permissions/capabilities/get", object{"sessionId": session["sessionId"]})
		all, _ := answer["capabilities"].(object)
		endpoints, _ := all["accounts"].([]any)
		for _, e := range endpoints {
			if e == "POST /accounts/list" {
				return true
			}
		}
		return false
	}
	require.False(t, mayList())
	must("accounts", "set-roles", object{"accountId": account, "roles": []string{"admin", "user"}})
	require.Eventually(t, mayList, patience, 20*time.Millisecond, "the role brings what it may call")
	must("accounts", "set-roles", object{"accountId": account, "roles": []string{"user"}})
	require.Eventually(t, func() bool { return !mayList() }, patience, 20*time.Millisecond, "and takes it away")

	streams := must("events", "streams", object{"category": "accounts.account"})
	require.NotEmpty(t, streams["streams"], "what has happened is in the log")
	must("accounts", "delete", object{"accountId": account})
	require.Eventually(t, func() bool {
		code, _ := l.post(t.Context(), "auth", "auth/validate", object{"accessToken": session["accessToken"]})
		return code == http.StatusUnauthorized
	}, patience, 20*time.Millisecond, "no session is left")
	code, answer = l.post(t.Context(), "accounts", "accounts/by-email", object{"email": email})
	require.Equal(t, http.StatusNotFound, code, "%v", answer)
}
