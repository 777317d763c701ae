package compose

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect/client"
)

// Who plays keeps it up while containers are lost: an account is registered and logs in, connects, gets a role and with it what the role may call, and is gone. Every request goes the
// way that callers' do; in the split suite each service, and what it tells the others, is in containers of its own. Those of which there are
// two are killed in the middle, one container each: the gateway is the one that the player is connected to.
func TestPlayersLoseContainers(t *testing.T) {
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

	player, err := client.Dial(t.Context(), client.Config{URLs: s.gateways, AccessToken: session["accessToken"].(string)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = player.Close() })
	waits, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, player.WaitFor(waits, "POST", "/auth/sessions/list", true), "the gateway tells what the session may call")

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
	require.NoError(t, player.WaitFor(waits, "POST", "/accounts/list", true), "the player hears of it")

	var killed []string
	for _, service := range doubled[s.shape] {
		victim := s.containers(t, service)[0]
		if service == "connect" {
			victim = l.holder(t, player.InstanceID())
		}
		execute(t, "docker", "kill", "--signal", "KILL", victim.Name)
		killed = append(killed, victim.Name)
	}
	require.Eventually(t, func() bool {
		code, _ := l.post(t.Context(), "auth", "auth/validate", object{"accessToken": session["accessToken"]})
		return code == http.StatusOK
	}, patience, 20*time.Millisecond, "the other one answers")
	require.Eventually(t, func() bool {
		answer, err := player.Call(t.Context(), "POST", "/accounts/list", []byte(`{}`))
		return err == nil && bytes.Contains(answer.Body, []byte(email))
	}, patience, 50*time.Millisecond, "the player is connected again, and calls")
	for _, name := range killed {
		execute(t, "docker", "start", name)
	}

	require.Eventually(t, func() bool { // those that were started again are found under their old names, and may not take requests yet
		code, _ := l.post(t.Context(), "accounts", "accounts/set-roles", object{"accountId": account, "roles": []string{"user"}})
		return code == http.StatusOK
	}, patience, 50*time.Millisecond, "an administrator takes the role back")
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

// holder is the container of a gateway, by its name among the instances.
func (l *load) holder(t *testing.T, instance string) container {
	t.Helper()
	code, answer := l.post(t.Context(), "mesh", "mesh/endpoints/get", object{"appId": "connect-node"})
	require.Equal(t, http.StatusOK, code, "%v", answer)
	endpoints, _ := answer["endpoints"].([]any)
	for _, e := range endpoints {
		e, _ := e.(object)
		for _, c := range l.stack.containers(t, "connect") {
			if host, _ := e["host"].(string); e["instanceId"] == instance && host != "" && strings.HasPrefix(c.ID, host) {
				return c
			}
		}
	}
	require.FailNow(t, "no container", "%s is none of %v", instance, endpoints)
	return container{}
}
