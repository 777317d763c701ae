package meshtest_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func TestTable(t *testing.T) {
	meshtest.RunTable(t, func(*testing.T) mesh.Table { return meshtest.NewTable() })
}

func TestFeed(t *testing.T) {
	meshtest.RunFeed(t, func(*testing.T) (here, there mesh.Feed) {
		f := new(meshtest.Feed)
		return f, f
	})
}

// The native way of calling is held to the suite of all ways.
func TestCalls(t *testing.T) {
	meshtest.RunCalls(t, func(t *testing.T, app http.Handler) (*mesh.Client, string) {
		server := httptest.NewServer(app)
		t.Cleanup(server.Close)
		host, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		number, err := strconv.Atoi(port)
		require.NoError(t, err)
		feed := new(meshtest.Feed)
		registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
		require.NoError(t, err)
		err = registry.Register(t.Context(), mesh.Endpoint{AppID: "app", InstanceID: "one", Host: host, Port: number})
		require.NoError(t, err)
		directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- directory.Run(ctx) }()
		t.Cleanup(func() { stop(); <-ended })
		require.NoError(t, directory.Refresh(t.Context()))
		client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory})
		require.NoError(t, err)
		t.Cleanup(client.Close)
		return client, "app"
	}, meshtest.CallFeatures{})
}
