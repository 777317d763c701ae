package pairs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
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

	compareCosts(b, "call over HTTP", []int{1, 16, 64}, posting(plain, server.URL+"/svc/echo"), invoking(client))
	compareCosts(b, "call in the same process beside HTTP over loopback", []int{1, 16}, posting(plain, server.URL+"/svc/echo"), invoking(local))

	backend, err := url.Parse(server.URL)
	require.NoError(b, err)
	reverse := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend); r.SetXForwarded() }})
	b.Cleanup(reverse.Close)
	proxy := httptest.NewServer(mesh.NewProxy(client, mesh.ProxyConfig{}))
	b.Cleanup(proxy.Close)
	compareCosts(b, "call through a proxy", []int{1, 16, 64},
		posting(plain, reverse.URL+"/svc/echo"), posting(plain, proxy.URL+"/v1.0/invoke/"+appID+"/method/svc/echo"))
}

// BenchmarkMeshPick finds an instance for a request, one of 100 whose figures are known from calls. The raw side is the
// least that spreads requests: a counter and a list.
func BenchmarkMeshPick(b *testing.B) {
	var endpoints []mesh.Endpoint
	for i := range 100 {
		endpoints = append(endpoints, mesh.Endpoint{AppID: appID, InstanceID: fmt.Sprintf("node-%d", i), Host: "10.0.0.1", Port: 1000 + i, MaxConnections: 100})
	}
	directory := directoryOf(b, endpoints...)
	var next atomic.Uint64
	counter := func(context.Context, int) error {
		if e := &endpoints[next.Add(1)%uint64(len(endpoints))]; e.Port == 0 {
			return errors.New("no endpoint")
		}
		return nil
	}
	for _, name := range mesh.BalancerNames() {
		balancer, err := mesh.BalancerNamed(name)
		require.NoError(b, err)
		client := newClient(b, mesh.ClientConfig{Directory: directory, Balancer: balancer, Transport: answering{}})
		for range 100 * len(endpoints) {
			_, err := mesh.Invoke[account, struct{}](b.Context(), client, appID, "svc/echo", newAccount(1))
			require.NoError(b, err)
		}
		compareCalls(b, name+" among 100", []int{1, 64}, counter, func(context.Context, int) error {
			_, err := client.Route(appID)
			return err
		})
	}
}

// answering is a network that answers at once.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, r.Body.Close()
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
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(b, err)
	number, err := strconv.Atoi(port)
	require.NoError(b, err)
	return directoryOf(b, mesh.Endpoint{AppID: appID, InstanceID: "node-1", Host: host, Port: number})
}

func directoryOf(b *testing.B, endpoints ...mesh.Endpoint) *mesh.Directory {
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(b, err)
	for _, e := range endpoints {
		require.NoError(b, registry.Register(b.Context(), e))
	}
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
