package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
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
