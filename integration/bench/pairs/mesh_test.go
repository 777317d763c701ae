package pairs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// BenchmarkMesh calls a handler that answers with the JSON it got. The raw side is net/http with the same transport and
// kept connections. A call within the process has no raw counterpart but the call over loopback that it spares.
func BenchmarkMesh(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	b.Cleanup(server.Close)
	directory := newDirectory(b, server)
	client := newClient(b, mesh.ClientConfig{Directory: directory})
	local := newClient(b, mesh.ClientConfig{Directory: directory, AppID: appID, Local: http.HandlerFunc(echo)})
	transport := mesh.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	plain := &http.Client{Transport: transport}

	compareCalls(b, "call over HTTP", []int{1, 16, 64}, posting(plain, server.URL+"/svc/echo"), invoking(client))
	compareCalls(b, "call in the same process beside HTTP over loopback", []int{1, 16}, posting(plain, server.URL+"/svc/echo"), invoking(local))

	backend, err := url.Parse(server.URL)
	require.NoError(b, err)
	reverse := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend); r.SetXForwarded() }})
	b.Cleanup(reverse.Close)
	proxy := httptest.NewServer(mesh.NewProxy(client, mesh.ProxyConfig{}))
	b.Cleanup(proxy.Close)
	compareCalls(b, "call through a proxy", []int{1, 16}, posting(plain, reverse.URL+"/svc/echo"), posting(plain, proxy.URL+"/v1.0/invoke/"+appID+"/method/svc/echo"))
}

const appID = "remote"

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// newDirectory knows one instance of one app-id.
func newDirectory(b *testing.B, server *httptest.Server) *mesh.Directory {
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(b, err)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(b, err)
	number, err := strconv.Atoi(port)
	require.NoError(b, err)
	require.NoError(b, registry.Register(b.Context(), mesh.Endpoint{AppID: appID, InstanceID: "node-1", Host: host, Port: number}))
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- directory.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
	})
	<-directory.Running()
	return directory
}

func newClient(b *testing.B, cfg mesh.ClientConfig) *mesh.Client {
	client, err := mesh.NewClient(cfg)
	require.NoError(b, err)
	b.Cleanup(client.Close)
	return client
}

func invoking(c *mesh.Client) call {
	return func(ctx context.Context, caller int) error {
		got, err := mesh.Invoke[account, account](ctx, c, appID, "svc/echo", newAccount(caller))
		if err != nil {
			return err
		}
		return got.check(caller)
	}
}

func posting(c *http.Client, address string) call {
	return func(ctx context.Context, caller int) error {
		body, err := json.Marshal(newAccount(caller))
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := c.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", response.Status, answer)
		}
		return checkJSON(answer, caller)
	}
}
