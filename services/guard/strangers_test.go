package guard_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// A node with another token takes none of the mesh's calls, and would pass for one that is quick at it: a client of the mesh has to
// take its answer for the failure of that instance, and to try another.
func TestAnInstanceWithAnotherTokenIsNoBlackHole(t *testing.T) {
	var log bytes.Buffer
	var taken atomic.Int64
	instance := func(id, token string) mesh.Endpoint {
		g := newGuard(t, guard.Config{Token: token, AppID: "accounts", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := g.Admit(r, "POST /x"); err != nil {
				problem.Write(w, err)
				return
			}
			taken.Add(1)
			_, _ = io.WriteString(w, "{}")
		}))
		t.Cleanup(server.Close)
		address := server.Listener.Addr().(*net.TCPAddr)
		return mesh.Endpoint{AppID: "accounts", InstanceID: id, Host: "127.0.0.1", Port: address.Port, Status: mesh.StatusHealthy}
	}
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	for _, e := range []mesh.Endpoint{instance("a", nextToken), instance("b", meshToken)} {
		require.NoError(t, registry.Register(t.Context(), e))
	}
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	require.NoError(t, directory.Refresh(t.Context()))
	c, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, Balancer: mesh.RoundRobin(), Authorize: newGuard(t, guard.Config{Token: meshToken, AppID: "game"}).Authorize})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	for range 20 {
		_, err := mesh.Invoke[struct{}, struct{}](t.Context(), c, "accounts", "x", struct{}{})
		require.NoError(t, err)
	}
	require.EqualValues(t, 20, taken.Load())
	require.Equal(t, 1, strings.Count(log.String(), "the tokens of the two differ"), log.String())
	require.Contains(t, log.String(), "address=127.0.0.1")
	require.NotContains(t, log.String(), "secret-of")

	_, err = admit(t, newGuard(t, guard.Config{Token: meshToken}), "/x", "/x", guard.TokenHeader, nextToken, mesh.HeaderCalled, "bannou")
	require.Equal(t, 421, statusOf(t, err))
	require.ErrorContains(t, err, "tokens of the two nodes differ")
	_, err = admit(t, newGuard(t, guard.Config{Token: meshToken}), "/x", "/x", "Authorization", "Bearer "+nextToken, mesh.HeaderCalled, "bannou")
	require.Equal(t, 401, statusOf(t, err), "what people show is theirs to mend")
}

// The log tells of each address once a minute.
func TestStrangersAreToldOfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := newGuard(t, guard.Config{Token: meshToken, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		call := func(address string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody)
			r.RemoteAddr = address
			r.Header = http.Header{guard.TokenHeader: {nextToken}, mesh.HeaderCalled: {"bannou"}}
			_, err := g.Admit(r, "/x")
			require.Equal(t, 421, statusOf(t, err))
		}
		for _, address := range []string{"10.0.0.1:5", "10.0.0.1:6", "10.0.0.2:5", "10.0.0.1:5"} {
			call(address)
		}
		require.Equal(t, 2, strings.Count(log.String(), "differ"))
		<-time.After(time.Minute)
		call("10.0.0.1:7")
		require.Equal(t, 3, strings.Count(log.String(), "differ"))
		for i := range 5000 {
			call(fmt.Sprintf("10.1.%d.%d:1", i/250, i%250))
		}
		require.LessOrEqual(t, strings.Count(log.String(), "differ"), 1003)
	})
}
