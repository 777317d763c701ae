package mesh_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	meshsvc "github.com/bannou-mesh/bannou/services/mesh"
)

// A node tells what it learned of the instances that it calls: who is called how often, how fast, and who is left out.
func TestTargets(t *testing.T) {
	n := start(t)
	answer := n.must("/mesh/targets", "")
	require.Empty(t, answer["targets"], "it called nobody yet")
	require.Positive(t, answer["directory"].(object)["version"])

	release := make(chan struct{})
	began := make(chan struct{}, 1)
	for name, status := range map[string]int{"good": 200, "bad": 500} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				began <- struct{}{}
				<-release
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(server.Close)
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		n.must("/mesh/register", `{"appId":"orders","instanceId":"`+name+`","host":"127.0.0.1","port":`+port+`,"zone":"eu-1a"}`)
	}
	soon(t, func() bool { return len(n.directory.Endpoints("orders")) == 2 }, "both are known")
	call := func(path string) {
		response, err := n.client.Post(n.url+"/v1.0/invoke/orders/method/"+path, "application/json", strings.NewReader("{}"))
		if err == nil {
			response.Body.Close()
		}
	}
	for range 100 {
		call("x")
	}
	done := make(chan struct{})
	go func() { defer close(done); call("slow") }()
	<-began
	defer func() { close(release); <-done }()

	answer = n.must("/mesh/targets", `{"appId":"orders"}`)
	state := answer["directory"].(object)
	require.EqualValues(t, 3, state["endpoints"])
	require.GreaterOrEqual(t, state["ageSeconds"], 0.0)
	targets := answer["targets"].([]any)
	require.Len(t, targets, 1)
	target := targets[0].(object)
	require.Equal(t, "orders", target["appId"])
	require.EqualValues(t, 101, target["picks"])
	require.Equal(t, false, target["panic"])
	require.Equal(t, "closed", target["breaker"])
	for _, none := range []string{"retries", "retriesRefused", "hedges", "hedgesWon", "breakerOpened", "calls", "waiting", "overloaded"} {
		require.EqualValues(t, 0, target[none], none)
	}
	bad, good := target["instances"].([]any)[0].(object), target["instances"].([]any)[1].(object)
	require.Equal(t, "bad", bad["instanceId"])
	require.Equal(t, "ejected", bad["state"])
	require.Equal(t, "healthy", bad["status"])
	require.Equal(t, "eu-1a", bad["zone"])
	require.Greater(t, bad["ejectedForMs"], 1000.0)
	require.EqualValues(t, 3_600_000, bad["lastEjectionMs"])
	require.Positive(t, bad["failureShare"])
	require.Equal(t, "available", good["state"])
	require.EqualValues(t, 1, good["inFlight"])
	require.Positive(t, good["latencyMs"])
	require.InDelta(t, 101, good["picks"].(float64)+bad["picks"].(float64), 0)
	require.Empty(t, n.must("/mesh/targets", `{"appId":"others"}`)["targets"])
}

// A program whose listener answers nobody is degraded by probes while it sends heartbeats, and healthy once it answers.
func TestProbesOfTheService(t *testing.T) {
	n := start(t, func(c *meshsvc.Config) {
		var err error
		c.Prober, err = mesh.NewProber(mesh.ProberConfig{Registry: c.Registry, Transport: c.Policy.Transport(), Interval: 10 * time.Millisecond})
		require.NoError(t, err)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n.must("/mesh/register", `{"appId":"orders","instanceId":"silent","host":"127.0.0.1","port":`+port+`}`)
	status := func() any {
		n.must("/mesh/heartbeat", `{"appId":"orders","instanceId":"silent"}`)
		list := n.must("/mesh/endpoints/get", `{"appId":"orders","includeUnhealthy":true}`)["endpoints"].([]any)
		return list[0].(object)["status"]
	}
	soon(t, func() bool { return status() == "degraded" }, "it answers no probe")
	soon(t, func() bool { e := n.directory.Endpoints("orders"); return len(e) == 1 && e[0].Status == "degraded" }, "callers hear of it")
	l, err = net.Listen("tcp", address)
	require.NoError(t, err)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.NotFoundHandler()}}
	server.Start()
	defer server.Close()
	soon(t, func() bool { return status() == "healthy" }, "it answers")
	require.Equal(t, "healthy", n.must("/mesh/endpoints/get", `{"appId":"bannou"}`)["endpoints"].([]any)[0].(object)["status"], "so did the node itself")
}
