package dapr_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/daprmesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// Calls through a sidecar are held to the suite of the native way, but for what is declared as missing.
func TestMeshDriver(t *testing.T) {
	features := meshtest.CallFeatures{
		Trailers: "the sidecar does not pass them on",
		Streams:  "the sidecar keeps the beginning of an answer back",
		Listing:  "Dapr has no list of instances",
		Unknown:  "the sidecar answers both alike",
		Refusals: "it cannot be told from the sidecar's own",
	}
	meshtest.RunCalls(t, func(t *testing.T, app http.Handler) (*mesh.Client, string) {
		server := httptest.NewServer(app)
		t.Cleanup(server.Close)
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		number, err := strconv.Atoi(port)
		require.NoError(t, err)
		d := servers.NewDaprd(t, servers.DaprdOptions{AppID: "shop", AppPort: number, Args: []string{"--dapr-http-max-request-size", "5"}})
		carrier, err := daprmesh.New(daprmesh.Config{Endpoint: d.URL})
		require.NoError(t, err)
		t.Cleanup(carrier.Close)
		return carriedClient(t, carrier), "shop"
	}, features)
	if *driversPage != "" && !t.Failed() {
		writeBetween(t, *driversPage, "mesh", features.Table("Dapr"))
	}
}

// A sidecar that is away is an error that says so, and nothing was sent.
func TestMeshDriverWithoutASidecar(t *testing.T) {
	carrier, err := daprmesh.New(daprmesh.Config{Endpoint: "http://" + freeAddress(t)})
	require.NoError(t, err)
	t.Cleanup(carrier.Close)
	_, err = mesh.Invoke[struct{}, struct{}](t.Context(), carriedClient(t, carrier), "shop", "a", struct{}{})
	require.ErrorIs(t, err, mesh.ErrUnavailable)
}

// carriedClient calls by the carrier alone.
func carriedClient(t *testing.T, carrier mesh.Carrier) *mesh.Client {
	t.Helper()
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- directory.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, Carrier: carrier})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}
