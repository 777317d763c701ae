package host_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/services/host"
)

// A node that is back at its old address, and not yet ready, has done nothing with a call: another instance is asked, also for what must not be done twice.
func TestCallsOfANodeThatStartsGoToAnother(t *testing.T) {
	var j journal
	reached, proceed := make(chan struct{}), make(chan struct{})
	handled := map[string]*atomic.Int64{"starting": {}, "ready": {}}
	place := func(name string) func(*http.ServeMux) {
		return handle("POST /orders/place", func(w http.ResponseWriter, _ *http.Request) {
			handled[name].Add(1)
			_, _ = io.WriteString(w, "{}")
		})
	}
	starting := run(t, host.Config{}, &part{name: "slow", journal: &j, mount: place("starting"), start: func(context.Context) error {
		close(reached)
		<-proceed
		return nil
	}})
	defer close(proceed)
	<-reached
	ready := run(t, host.Config{}, &part{name: "quick", journal: &j, mount: place("ready")}).started()
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	for i, r := range []*running{starting, ready} {
		require.NoError(t, registry.Register(t.Context(), mesh.Endpoint{AppID: "orders", InstanceID: "node-" + strconv.Itoa(i), Host: "127.0.0.1",
			Port: r.Addr().(*net.TCPAddr).Port, Status: mesh.StatusHealthy}))
	}
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	require.NoError(t, directory.Refresh(t.Context()))
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, Balancer: mesh.RoundRobin()})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	for range 4 {
		_, err := mesh.Invoke[struct{}, struct{}](t.Context(), client, "orders", "orders/place", struct{}{})
		require.NoError(t, err)
	}
	require.EqualValues(t, 4, handled["ready"].Load())
	require.Zero(t, handled["starting"].Load())
}
