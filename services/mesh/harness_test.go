package mesh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/membership"
	meshsvc "github.com/bannou-mesh/bannou/services/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

// node is the mesh service on a host that is a member, as a caller sees it.
type node struct {
	t         testing.TB
	url       string
	client    *http.Client
	bus       *bus.Bus
	registry  *mesh.Registry
	directory *mesh.Directory
	factory   *state.Factory
	inFlight  func() int
}

// echo is another service of the node, which answers with what it was asked, and how many requests the host has in work.
type echo struct {
	host.Base
	inFlight func() int
}

func (echo) Name() string { return "echo" }

func (e echo) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("POST /echo/{what}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-In-Flight", strconv.Itoa(e.inFlight()))
		_, _ = w.Write([]byte(r.PathValue("what") + " " + string(body)))
	})
	return nil
}

// start starts one. change alters the service's configuration.
func start(t testing.TB, change ...func(*meshsvc.Config)) *node {
	t.Helper()
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{ImmediateRetries: -1, RetryMaxAttempts: -1})
	require.NoError(t, err)
	factory, err := state.NewFactory(membership.Stores("memory", "memory"), []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	table, err := membership.NewTable(factory)
	require.NoError(t, err)
	feed := membership.NewFeed(b, nil)
	registry, err := mesh.NewRegistry(table, feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	metrics, err := host.NewMetrics()
	require.NoError(t, err)
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{MeterProvider: metrics.MeterProvider()})
	policy, err := egress.New(egress.Config{Networks: []string{"192.0.2.0/24"}})
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0", RequestContext: mesh.WithRequestID, Middleware: mesh.Inbound, Metrics: metrics})
	require.NoError(t, err)
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, AppID: "bannou", InstanceID: "self",
		Local: h.Local(), LocalServices: []string{"mesh", "echo"}, Transport: policy.Transport(), Timeout: time.Minute,
		Policy:   mesh.Policy{Breaker: mesh.Breaker{Lasting: -1, OpenFor: time.Hour}},
		Ejection: mesh.Ejection{Time: time.Hour},
		Balancer: mesh.RoundRobin(), MeterProvider: metrics.MeterProvider()})
	require.NoError(t, err)
	cfg := meshsvc.Config{Registry: registry, Client: client, Policy: policy, Bus: b, SweepInterval: 10 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	service, err := meshsvc.New(cfg)
	require.NoError(t, err)
	member, err := membership.NewMember(membership.Config{Registry: registry, Bus: b, InstanceID: "self", Services: []string{"mesh", "echo"}, Addr: h.Addr})
	require.NoError(t, err)
	for _, s := range []host.Service{member, service, echo{inFlight: h.InFlight}} {
		require.NoError(t, h.Add(s))
	}

	ctx, cancel := context.WithCancel(context.Background())
	life, end := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- b.Run(life) }()
	go func() { ended <- directory.Run(life) }()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case <-h.Started():
	case err := <-done:
		t.Fatal(err)
	}
	<-directory.Running()
	<-b.Running()
	n := &node{t: t, url: "http://" + h.Addr().String(), bus: b, registry: registry, directory: directory, factory: factory, inFlight: h.InFlight,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		cancel()
		require.NoError(t, <-done)
		client.Close()
		end()
		for range 2 {
			require.NoError(t, <-ended)
		}
		require.NoError(t, metrics.Close(context.Background()))
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	return n
}

func (n *node) post(path, body string) (int, object) {
	n.t.Helper()
	response, err := n.client.Post(n.url+path, "application/json", bytes.NewReader([]byte(body)))
	require.NoError(n.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	var decoded object
	require.NoError(n.t, json.Unmarshal(answer, &decoded), "%s", answer)
	return response.StatusCode, decoded
}

func (n *node) must(path, body string) object {
	n.t.Helper()
	status, answer := n.post(path, body)
	require.Equal(n.t, 200, status, "%s %s: %v", path, body, answer)
	return answer
}

// soon waits for what happens by the bus. The condition is asked here, in the test's own goroutine, so that it may end the test.
func soon(t testing.TB, condition func() bool, why string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); <-time.After(2 * time.Millisecond) {
		require.True(t, time.Now().Before(end), why)
	}
}
