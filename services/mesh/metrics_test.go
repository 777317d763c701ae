package mesh_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator sees on /metrics which target is called, how many of its instances are left, and why.
func TestMetricsOfTargets(t *testing.T) {
	n := start(t)
	for name, status := range map[string]int{"good": 200, "bad": 500} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(server.Close)
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		n.must("/mesh/register", `{"appId":"orders","instanceId":"`+name+`","host":"127.0.0.1","port":`+port+`,"zone":"eu-1a"}`)
	}
	soon(t, func() bool { return len(n.directory.Endpoints("orders")) == 2 }, "both are known")
	require.Equal(t, "eu-1a", n.directory.Endpoints("orders")[0].Zone)
	require.Equal(t, "eu-1a", n.must("/mesh/route", `{"appId":"orders"}`)["endpoint"].(object)["zone"])
	const calls = 400
	for range calls {
		response, err := n.client.Post(n.url+"/v1.0/invoke/orders/method/x", "application/json", strings.NewReader("{}"))
		require.NoError(t, err)
		response.Body.Close()
	}
	page := n.metrics()
	for _, line := range []string{
		`bannou_mesh_picks_total{target="orders"} 400`,
		`bannou_mesh_ejections_total{reason="consecutive",target="orders"} 1`,
		`bannou_mesh_instances{state="available",target="orders"} 1`,
		`bannou_mesh_instances{state="ejected",target="orders"} 1`,
		`bannou_mesh_in_flight{target="orders"} 0`,
		`bannou_mesh_panic{target="orders"} 0`,
		`bannou_mesh_breaker{state="closed",target="orders"} 1`,
		`bannou_mesh_breaker{state="open",target="orders"} 0`,
		`bannou_mesh_retries_total{result="made",target="orders"} 0`,
		`bannou_mesh_duration_seconds_bucket{outcome="ok",target="orders",le="0.005"}`,
	} {
		require.Contains(t, page, line)
	}
}

// While the registry is away, an operator sees how old what the node goes by is.
func TestMetricsOfTheDirectory(t *testing.T) {
	n := start(t)
	n.must("/orchestrator/service-mappings/set", `{"mappings":{"npc":"npc-node"}}`)
	soon(t, func() bool { return n.directory.Mappings().Version == 1 }, "it is known")
	require.NoError(t, n.factory.Close())
	age := func() float64 {
		for line := range strings.Lines(n.metrics()) {
			if text, found := strings.CutPrefix(line, "bannou_mesh_directory_age_seconds "); found {
				age, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				require.NoError(t, err)
				return age
			}
		}
		t.Fatal("no age in ", n.metrics())
		return 0
	}
	first := age()
	soon(t, func() bool { return age() > first+0.02 }, "it grows")
	require.InDelta(t, n.directory.State().Age.Seconds(), age(), 1)
	require.Contains(t, n.metrics(), "bannou_mesh_mappings_version 1\n")
}

// metrics are the mesh's lines of /metrics.
func (n *node) metrics() string {
	n.t.Helper()
	response, err := n.client.Get(n.url + "/metrics")
	require.NoError(n.t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	return ours(string(page))
}

// ours are the lines of the mesh, without the labels that every line has.
func ours(page string) string {
	var b strings.Builder
	for line := range strings.Lines(page) {
		if name, labels, found := strings.Cut(strings.TrimSpace(line), "{"); found && strings.HasPrefix(line, "bannou_mesh") {
			labels, value, _ := strings.Cut(labels, "}")
			var kept []string
			for label := range strings.SplitSeq(labels, ",") {
				if !strings.HasPrefix(label, "otel_") {
					kept = append(kept, label)
				}
			}
			b.WriteString(name + "{" + strings.Join(kept, ",") + "}" + value + "\n")
		} else if strings.HasPrefix(line, "bannou_mesh") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Who calls an app-id whose every instance fails is told so at once, in the form of all problems, and an operator sees it.
func TestAnOpenBreakerIsAProblem(t *testing.T) {
	n := start(t)
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	n.must("/mesh/register", `{"appId":"orders","instanceId":"bad","host":"127.0.0.1","port":`+port+`}`)
	soon(t, func() bool { return len(n.directory.Endpoints("orders")) == 1 }, "it is known")
	var body []byte
	for range 21 {
		response, err := n.client.Post(n.url+"/v1.0/invoke/orders/method/x", "application/json", strings.NewReader("{}"))
		require.NoError(t, err)
		body, err = io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	}
	require.Equal(t, 20, calls)
	require.Contains(t, string(body), `"code":"circuit_open"`)
	require.NotContains(t, string(body), "127.0.0.1")
	response, err := n.client.Get(n.url + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for _, line := range []string{
		`bannou_mesh_breaker{state="open",target="orders"} 1`,
		`bannou_mesh_breaker_opened_total{target="orders"} 1`,
		`bannou_mesh_requests_total{outcome="circuitOpen",target="orders"} 1`,
		`bannou_mesh_requests_total{outcome="serverError",target="orders"} 20`,
	} {
		require.Contains(t, ours(string(page)), line)
	}
}
