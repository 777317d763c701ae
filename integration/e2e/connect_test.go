package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
	"github.com/bannou-mesh/bannou/services/guard"
)

// A player connects, may call what the role of the account may, hears of events, and is cut off by the logout.
func TestGateway(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		n := startNode(t)
		gateway(t, n, n)
		require.Zero(t, n.stop(t))
	})
	eachBroker(t, func(t *testing.T, broker string) {
		args := serversWith(t, broker)
		gateway(t, startNode(t, args...), startNode(t, args...))
	})
}

func gateway(t *testing.T, here, there *node) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, answer := postAs(t, http.DefaultClient, here.url+"/auth/register", object{"email": "ada@example.org", "password": "correct horse battery"})
	require.Equal(t, http.StatusOK, status, "%v", answer)
	l := loginFrom(t, answer)
	c, err := client.Dial(ctx, client.Config{URLs: []string{there.url}, AccessToken: l.AccessToken})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, l.SessionID, c.SessionID())
	require.NoError(t, c.WaitFor(ctx, "POST", "/auth/logout", true))
	_, err = c.Call(ctx, "POST", "/accounts/get", []byte(`{}`))
	require.ErrorIs(t, err, client.ErrNotAllowed)

	id, answer := postAs(t, http.DefaultClient, here.url+"/messaging/publish", object{"topic": "session." + l.SessionID + ".greeting", "payload": object{"hello": "Ada"}})
	require.Equal(t, http.StatusOK, id, "%v", answer)
	select {
	case e := <-c.Events():
		require.Equal(t, "greeting", e.Name)
		var body object
		require.NoError(t, json.Unmarshal(e.Body, &body))
		require.Equal(t, "Ada", body["hello"])
	case <-ctx.Done():
		t.Fatal("the event did not come")
	}

	answered, err := c.Call(ctx, "POST", "/auth/logout", []byte(`{"refreshToken":"`+l.RefreshToken+`"}`))
	if err == nil { // else the connection was closed before the answer
		require.Equal(t, connect.CodeOK, answered.Code, "%s", answered.Body)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Fatal("the logout did not close the connection")
	}
}

// On a guarded node, a player needs nothing of the mesh to connect, and auth knows there whose call it is.
func TestGatewayGuarded(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--mesh-token", meshToken)
	node := secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"web"}}}
	status, answer := node.ask(t, http.MethodPost, n.url+"/auth/register", `{"email":"ada@example.org","password":"correct horse battery"}`)
	require.Equal(t, http.StatusOK, status, answer)
	var l login
	require.NoError(t, json.Unmarshal([]byte(answer), &l))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.Config{URLs: []string{n.url}, AccessToken: l.AccessToken})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.WaitFor(ctx, "POST", "/auth/sessions/list", true))
	answered, err := c.Call(ctx, "POST", "/auth/sessions/list", []byte(`{}`))
	require.NoError(t, err)
	require.Equal(t, connect.CodeOK, answered.Code, "%s", answered.Body)
	require.Contains(t, string(answered.Body), `"current":true`)
}

// A node is killed under its clients: they come back to the other one with their tokens, and have missed nothing of what was published
// before, meanwhile and after.
func TestGatewayKilled(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, broker string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		args := serversWith(t, broker)
		services := startNode(t, args...)
		first := startNode(t, append(args, "--services", "connect", "--app-id", "gateway")...)
		second := startNode(t, append(args, "--services", "connect", "--app-id", "gateway")...)
		const clients, eventsEach = 5, 60
		all := make([]*client.Client, clients)
		for n := range all {
			status, answer := postAs(t, http.DefaultClient, services.url+"/auth/register",
				object{"email": fmt.Sprintf("player%d@example.org", n), "password": "correct horse battery"})
			require.Equal(t, http.StatusOK, status, "%v", answer)
			var err error
			all[n], err = client.Dial(ctx, client.Config{URLs: []string{first.url, second.url}, AccessToken: loginFrom(t, answer).AccessToken})
			require.NoError(t, err)
			defer all[n].Close()
		}
		var publishing sync.WaitGroup
		half := make(chan struct{})
		publishing.Go(func() {
			reached := sync.OnceFunc(func() { close(half) })
			defer reached()
			for i := range eventsEach {
				for _, c := range all {
					status, answer := postAs(t, http.DefaultClient, services.url+"/messaging/publish",
						object{"topic": "session." + c.SessionID() + ".number", "payload": object{"n": i}})
					if !assert.Equal(t, http.StatusOK, status, "%v", answer) {
						return
					}
				}
				if i == eventsEach/3 {
					reached()
				}
			}
		})
		<-half
		first.kill()
		lost := 0
		for n, c := range all {
			seen := map[float64]bool{} // the client itself drops what comes twice
			for len(seen) < eventsEach {
				select {
				case e := <-c.Events():
					var body object
					require.NoError(t, json.Unmarshal(e.Body, &body))
					seen[body["n"].(float64)] = true
				case <-ctx.Done():
					t.Fatalf("client %d has %d of %d events", n, len(seen), eventsEach)
				}
			}
			for i := range eventsEach {
				if !seen[float64(i)] {
					lost++
				}
			}
			require.NoError(t, c.WaitFor(ctx, "POST", "/auth/logout", true), "the manifest comes on the new connection too")
		}
		publishing.Wait()
		t.Logf("sent %d, lost %d", clients*eventsEach, lost)
		require.Zero(t, lost, "acknowledged and lost")
	})
}
