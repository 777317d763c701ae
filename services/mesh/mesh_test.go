package mesh_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/membership"
	meshsvc "github.com/bannou-mesh/bannou/services/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

// program is one that the mesh does not know yet. It answers with its name.
func program(t testing.TB, name string) (port string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Seen-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Seen-Traceparent", r.Header.Get("Traceparent"))
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprintf(w, "%s %s %s?%s %s", name, r.Method, r.URL.Path, r.URL.RawQuery, body)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	return u.Port()
}

func ids(answer object) []string {
	var list []string
	for _, e := range answer["endpoints"].([]any) {
		list = append(list, e.(object)["instanceId"].(string))
	}
	return list
}

func TestRegisterFindRouteInvokeDeregister(t *testing.T) {
	n := start(t)
	port := program(t, "game")
	registered := n.must("/mesh/register", `{"appId":"game","host":"127.0.0.1","port":`+port+`,"services":["game-session"],"maxConnections":50}`)
	id := registered["instanceId"].(string)
	require.NotEmpty(t, id, "an id is made when none is given")

	got := n.must("/mesh/endpoints/get", `{"appId":"game"}`)
	require.Equal(t, []string{id}, ids(got))
	e := got["endpoints"].([]any)[0].(object)
	require.Equal(t, "healthy", e["status"])
	require.EqualValues(t, 50, e["maxConnections"])
	require.Equal(t, []any{"game-session"}, e["services"])
	require.Equal(t, got, n.must("/orchestrator/service-endpoints", `{"appId":"game"}`))
	require.ElementsMatch(t, []string{"self", id}, ids(n.must("/mesh/endpoints/list", "")))

	soon(t, func() bool { status, _ := n.post("/mesh/route", `{"appId":"game"}`); return status == 200 }, "it can be routed to")
	require.Equal(t, id, n.must("/mesh/route", `{"appId":"game"}`)["endpoint"].(object)["instanceId"])

	request, err := http.NewRequest(http.MethodPut, n.url+"/v1.0/invoke/game/method/level/up%2Fdown?by=1", strings.NewReader("body"))
	require.NoError(t, err)
	request.Header.Set("X-Request-Id", "r-7")
	request.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	response, err := n.client.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusTeapot, response.StatusCode, "the answer passes through")
	require.Equal(t, "game PUT /level/up/down?by=1 body", string(body))
	require.Equal(t, "r-7", response.Header.Get("X-Seen-Request-Id"))
	require.Contains(t, response.Header.Get("X-Seen-Traceparent"), "0af7651916cd43dd8448eb211c80319c")

	require.Equal(t, object{"success": true}, n.must("/mesh/deregister", `{"appId":"game","instanceId":"`+id+`"}`))
	require.Empty(t, n.must("/mesh/endpoints/get", `{"appId":"game"}`)["endpoints"])
	status, answer := n.post("/mesh/deregister", `{"appId":"game","instanceId":"`+id+`"}`)
	require.Equal(t, 404, status)
	require.Equal(t, "not_found", answer["code"])
	soon(t, func() bool { // the program's own answers are no JSON
		response, err := n.client.Post(n.url+"/v1.0/invoke/game/method/x", "text/plain", nil)
		return err == nil && response.Body.Close() == nil && response.StatusCode != http.StatusTeapot
	}, "it is called no more")
	_, answer = n.post("/v1.0/invoke/game/method/x", "")
	require.Contains(t, []any{"unknown_target", "no_endpoint"}, answer["code"])
}

func TestACallForThisNodeStaysInTheProcess(t *testing.T) {
	n := start(t)
	for _, target := range []string{"bannou", "echo"} {
		soon(t, func() bool { return n.inFlight() == 0 }, "the one before is over")
		response, err := n.client.Post(n.url+"/v1.0/invoke/"+target+"/method/echo/hello", "text/plain", strings.NewReader("you"))
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, "hello you", string(body), target)
		require.Equal(t, "1", response.Header.Get("X-In-Flight"), "one request is one, also where the node calls itself for it")
	}
	status, answer := n.post("/v1.0/invoke/nobody/method/x", "{}")
	require.Equal(t, 404, status)
	require.Equal(t, "unknown_target", answer["code"])
}

func TestHeartbeats(t *testing.T) {
	n := start(t)
	n.must("/mesh/heartbeat", `{"appId":"game","instanceId":"g1","host":"127.0.0.1","port":80,"loadPercent":12.5,"currentConnections":3,"services":["a"]}`)
	one := func() object {
		return n.must("/mesh/endpoints/get", `{"appId":"game","includeUnhealthy":true}`)["endpoints"].([]any)[0].(object)
	}
	require.InDelta(t, 12.5, one()["loadPercent"], 0, "one that is not known is registered")
	n.must("/mesh/heartbeat", `{"appId":"game","instanceId":"g1","status":"unavailable"}`)
	require.Equal(t, "unavailable", one()["status"])
	require.EqualValues(t, 80, one()["port"], "what is left out stays")
	require.Empty(t, n.must("/mesh/endpoints/get", `{"appId":"game"}`)["endpoints"])
	soon(t, func() bool {
		status, answer := n.post("/mesh/route", `{"appId":"game"}`)
		return status == 503 && answer["code"] == "no_endpoint"
	}, "nothing to route to")

	health := n.must("/mesh/health", "")
	require.Equal(t, "degraded", health["status"])
	require.Equal(t, []any{
		object{"appId": "bannou", "healthy": 1.0, "degraded": 0.0, "unavailable": 0.0, "shuttingDown": 0.0},
		object{"appId": "game", "healthy": 0.0, "degraded": 0.0, "unavailable": 1.0, "shuttingDown": 0.0},
	}, health["appIds"])
	n.must("/mesh/heartbeat", `{"appId":"game","instanceId":"g1","status":"healthy"}`)
	require.Equal(t, "healthy", n.must("/mesh/health", "{}")["status"])
}

func TestMappings(t *testing.T) {
	n := start(t)
	require.Equal(t, object{"mappings": object{}, "defaultAppId": "bannou", "version": 0.0}, n.must("/mesh/mappings", ""))
	port := program(t, "npc")
	n.must("/mesh/register", `{"appId":"npc-node","instanceId":"n1","host":"127.0.0.1","port":`+port+`}`)
	set := n.must("/orchestrator/service-mappings/set", `{"mappings":{"npc":"npc-node"},"sourceInstanceId":"admin"}`)
	require.Equal(t, object{"mappings": object{"npc": "npc-node"}, "defaultAppId": "bannou", "version": 1.0, "sourceInstanceId": "admin"}, set)
	require.Equal(t, set, n.must("/mesh/mappings", "{}"))
	soon(t, func() bool { return n.directory.AppID("npc") == "npc-node" }, "every directory hears of it")
	response, err := n.client.Get(n.url + "/v1.0/invoke/npc/method/think")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "npc GET /think? ", string(body), "a service is called by its own name")
	reset := n.must("/orchestrator/service-mappings/set", `{"mappings":{}}`)
	require.Equal(t, object{}, reset["mappings"])
	require.EqualValues(t, 2, reset["version"])
}

func TestConfiguration(t *testing.T) {
	n := start(t)
	require.EqualValues(t, 0, n.must("/orchestrator/config/current", "")["version"])
	require.Empty(t, n.must("/orchestrator/config/history", "")["versions"])
	first := n.must("/orchestrator/config/set", `{"expectedVersion":0,"mappings":{"a":"x"},"settings":{"limit":12345678901234567890}}`)
	require.EqualValues(t, 1, first["version"])
	status, answer := n.post("/orchestrator/config/set", `{"expectedVersion":0,"mappings":{}}`)
	require.Equal(t, 409, status)
	require.Equal(t, "conflict", answer["code"])
	n.must("/orchestrator/config/set", `{"expectedVersion":1,"mappings":{"a":"y"}}`)
	status, answer = n.post("/orchestrator/config/rollback", `{"version":1,"expectedVersion":1}`)
	require.Equal(t, 409, status, "somebody changed it meanwhile")
	require.Equal(t, "conflict", answer["code"])
	back := n.must("/orchestrator/config/rollback", `{"version":1,"expectedVersion":2,"sourceInstanceId":"admin"}`)
	require.EqualValues(t, 3, back["version"], "a rollback is a new version")
	require.EqualValues(t, 1, back["rolledBackTo"])
	require.Equal(t, object{"a": "x"}, back["mappings"])
	versions := n.must("/orchestrator/config/history", `{"limit":2}`)["versions"].([]any)
	require.Len(t, versions, 2)
	require.EqualValues(t, 3, versions[0].(object)["version"])
	status, answer = n.post("/orchestrator/config/rollback", `{"version":77}`)
	require.Equal(t, 404, status)
	require.Equal(t, "not_found", answer["code"])

	client, err := meshapi.NewClientWithResponses(n.url, meshapi.WithHTTPClient(n.client))
	require.NoError(t, err)
	current, err := client.CurrentConfigWithResponse(t.Context(), meshapi.EmptyRequest{})
	require.NoError(t, err)
	require.JSONEq(t, `{"limit":12345678901234567890}`, string(current.JSON200.Settings))
	require.Contains(t, string(current.Body), "12345678901234567890")
}

// A registry that lost its memory gets the mappings again from the nodes that go by them, before somebody changes them or else soon.
func TestARegistryThatForgotGetsItsMappingsBack(t *testing.T) {
	for name, interval := range map[string]time.Duration{"swept": 10 * time.Millisecond, "set": time.Hour} {
		t.Run(name, func(t *testing.T) {
			n := start(t, func(c *meshsvc.Config) { c.SweepInterval = interval })
			for _, app := range []string{"x", "y", "z"} {
				n.must("/orchestrator/config/set", `{"expectedVersion":`+fmt.Sprint(n.must("/orchestrator/config/current", "")["version"])+`,"mappings":{"a":"`+app+`"}}`)
			}
			soon(t, func() bool { return n.directory.Mappings().Version == 3 }, "it is known")
			table, err := membership.NewTable(n.factory)
			require.NoError(t, err)
			for _, key := range []string{"version", "history:1", "history:2", "history:3", "current"} {
				require.NoError(t, table.Delete(t.Context(), "config:"+key))
			}
			if name == "swept" {
				soon(t, func() bool {
					m, err := n.registry.Mappings(t.Context())
					return err == nil && m.Version == 3 && m.Services["a"] == "z"
				}, "it is written down again")
			}
			status, answer := n.post("/orchestrator/config/set", `{"expectedVersion":0,"mappings":{}}`)
			require.Equal(t, 409, status, answer)
			require.EqualValues(t, 4, n.must("/orchestrator/service-mappings/set", `{"mappings":{"a":"w"}}`)["version"])
			soon(t, func() bool { return n.directory.AppID("a") == "w" }, "nodes heed it")
		})
	}
}

func TestProgramsThatAnnounceThemselvesOnTheBusOnly(t *testing.T) {
	n := start(t)
	publish := func(topic string, e bus.Event) {
		_, err := n.bus.Publish(t.Context(), topic, e)
		require.NoError(t, err)
	}
	status := func(id string) mesh.Status {
		endpoints, err := n.registry.Endpoints(t.Context(), "old", true)
		require.NoError(t, err)
		for _, e := range endpoints {
			if e.InstanceID == id {
				return e.Status
			}
		}
		return ""
	}
	publish(events.TopicServiceRegistration, &events.ServiceRegistrationEvent{AppID: "old", InstanceID: "o1", Host: "10.1.2.3", Port: 80})
	soon(t, func() bool { return status("o1") == mesh.StatusHealthy }, "a registration; the bus is trusted with any address")
	publish(events.TopicServiceHeartbeats, &events.ServiceHeartbeatEvent{AppID: "old", InstanceID: "o1", Host: "10.1.2.3", Port: 80,
		Status: events.EndpointStatusDegraded})
	soon(t, func() bool { return status("o1") == mesh.StatusDegraded }, "a heartbeat")

	// One that breaks a rule goes to the dead letters, and does not hold up the next.
	publish(events.TopicServiceRegistration, &events.ServiceRegistrationEvent{AppID: "Not A Name", InstanceID: "o2", Host: "h", Port: 80})
	stale := &events.ServiceRegistrationEvent{AppID: "old", InstanceID: "o3", Host: "h", Port: 80}
	stale.Timestamp = time.Now().Add(-time.Hour)
	publish(events.TopicServiceRegistration, stale)
	publish(events.TopicServiceRegistration, &events.ServiceRegistrationEvent{AppID: "old", InstanceID: "o4", Host: "h", Port: 80})
	soon(t, func() bool { return status("o4") != "" }, "the next is taken in")
	require.Empty(t, status("o3"), "one that waited for an hour is not")

	publish(events.TopicFullServiceMappings, &events.FullServiceMappingsEvent{Mappings: map[string]string{"legacy": "old"}, DefaultAppID: "bannou", Version: 40})
	soon(t, func() bool { return n.must("/mesh/mappings", "")["version"] == 40.0 }, "mappings with a higher version")
}

func TestTheNodeItselfIsInTheRegistry(t *testing.T) {
	n := start(t)
	e := n.must("/mesh/endpoints/get", `{"appId":"bannou"}`)["endpoints"].([]any)[0].(object)
	require.Equal(t, "self", e["instanceId"])
	require.Equal(t, n.url, fmt.Sprintf("http://%v:%v", e["host"], e["port"]))
	response, err := n.client.Get(n.url + "/readyz")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, 200, response.StatusCode)
}

func TestARegistryThatIsAwayIsUnavailable(t *testing.T) {
	n := start(t)
	require.NoError(t, n.factory.Close())
	for path, body := range map[string]string{
		"/mesh/register":               `{"appId":"a","host":"127.0.0.1","port":1}`,
		"/mesh/endpoints/list":         ``,
		"/mesh/mappings":               ``,
		"/orchestrator/config/current": ``,
	} {
		status, answer := n.post(path, body)
		require.Equal(t, 503, status, path)
		require.Equal(t, "unavailable", answer["code"], path)
	}
}
