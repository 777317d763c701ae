package mesh_test

import (
	"strings"
	"testing"

	. "github.com/bannou-mesh/bannou/services/host/hosttest"
)

const maxBody = 1 << 20

// endpoints are all of the service's, with each member of their bodies.
func endpoints() []Endpoint {
	all := []Endpoint{
		{Path: "/mesh/register", Required: []string{"appId", "host", "port"},
			Valid: `{"appId":"app","instanceId":"one","host":"127.0.0.1","port":80,"externalHost":"example.org","status":"healthy","maxConnections":5,"services":["a"]}`,
			Members: map[string]Kind{"appId": String, "instanceId": String, "host": String, "port": Integer, "externalHost": String,
				"status": String, "maxConnections": Integer, "services": Array}},
		{Path: "/mesh/heartbeat", Required: []string{"appId", "instanceId"},
			Valid: `{"appId":"app","instanceId":"one","host":"127.0.0.1","port":80,"externalHost":"example.org","status":"healthy",
				"loadPercent":1,"maxConnections":5,"currentConnections":1,"services":["a"]}`,
			Members: map[string]Kind{"appId": String, "instanceId": String, "host": String, "port": Integer, "externalHost": String,
				"status": String, "loadPercent": Number, "maxConnections": Integer, "currentConnections": Integer, "services": Array}},
		{Path: "/mesh/deregister", Valid: `{"appId":"app","instanceId":"none"}`, Status: 404, Required: []string{"appId", "instanceId"},
			Members: map[string]Kind{"appId": String, "instanceId": String}},
		{Path: "/mesh/endpoints/get", Valid: `{"appId":"app","includeUnhealthy":true}`, Required: []string{"appId"},
			Members: map[string]Kind{"appId": String, "includeUnhealthy": Boolean}},
		{Path: "/mesh/endpoints/list", Valid: `{"includeUnhealthy":true}`, Members: map[string]Kind{"includeUnhealthy": Boolean}},
		{Path: "/mesh/route", Valid: `{"appId":"bannou"}`, Required: []string{"appId"}, Members: map[string]Kind{"appId": String}},
		{Path: "/mesh/targets", Valid: `{"appId":"app"}`, Members: map[string]Kind{"appId": String}},
		{Path: "/mesh/mappings", Valid: `{}`},
		{Path: "/mesh/health", Valid: `{}`},
		{Path: "/orchestrator/service-endpoints", Valid: `{"appId":"app","includeUnhealthy":true}`, Required: []string{"appId"},
			Members: map[string]Kind{"appId": String, "includeUnhealthy": Boolean}},
		{Path: "/orchestrator/service-mappings/set", Valid: `{"mappings":{"a":"b"},"sourceInstanceId":"me"}`, Required: []string{"mappings"},
			Members: map[string]Kind{"mappings": Object, "sourceInstanceId": String}},
		{Path: "/orchestrator/config/current", Valid: `{}`},
		{Path: "/orchestrator/config/set", Status: 409, Required: []string{"expectedVersion"},
			Valid: `{"expectedVersion":1000000,"mappings":{"a":"b"},"defaultAppId":"bannou","settings":{},"sourceInstanceId":"me"}`,
			Members: map[string]Kind{"expectedVersion": Integer, "mappings": Object, "defaultAppId": String, "settings": Object,
				"sourceInstanceId": String}},
		{Path: "/orchestrator/config/history", Valid: `{"limit":3}`, Members: map[string]Kind{"limit": Integer}},
		{Path: "/orchestrator/config/rollback", Valid: `{"version":1000000,"expectedVersion":1000000,"sourceInstanceId":"me"}`, Status: 409,
			Required: []string{"version"}, Members: map[string]Kind{"version": Integer, "expectedVersion": Integer, "sourceInstanceId": String}},
	}
	for i := range all {
		all[i].MaxBytes = maxBody
	}
	return all
}

func TestRefusals(t *testing.T) {
	n := start(t)
	Refusals(t, Target{URL: n.url, Client: n.client}, endpoints())
}

func TestRefusalsOfMesh(t *testing.T) {
	n := start(t)
	target := Target{URL: n.url, Client: n.client}
	register := func(members string) string {
		return `{"appId":"a","instanceId":"b","host":"127.0.0.1","port":80,` + members + `}`
	}
	at := func(host string) string { return `{"appId":"a","instanceId":"b","host":"` + host + `","port":80}` }
	long := strings.Repeat("n", 129)
	for _, c := range []struct {
		path, body   string
		status       int
		code, member string
	}{
		{"/mesh/register", at("10.0.0.1"), 403, "host_not_allowed", "host"},
		{"/mesh/register", at("169.254.169.254"), 403, "host_not_allowed", "host"},
		{"/mesh/register", at("0.0.0.0"), 403, "host_not_allowed", "host"},
		{"/mesh/register", at("::ffff:10.0.0.1"), 403, "host_not_allowed", "host"},
		{"/mesh/register", at("host.invalid"), 400, "invalid_member", "host"},
		{"/mesh/register", at("http://127.0.0.1"), 400, "invalid_member", "host"},
		{"/mesh/register", at("127.0.0.1:80"), 400, "invalid_member", "host"},
		{"/mesh/register", at("user@127.0.0.1"), 400, "invalid_member", "host"},
		{"/mesh/heartbeat", at("10.0.0.1"), 403, "host_not_allowed", "host"},
		{"/mesh/heartbeat", `{"appId":"a","instanceId":"b","host":"127.0.0.1"}`, 400, "missing_member", "port"},
		{"/mesh/heartbeat", `{"appId":"a","instanceId":"b","port":80}`, 400, "missing_member", "host"},
		{"/mesh/heartbeat", `{"appId":"unknown","instanceId":"b"}`, 400, "missing_member", "host"},
		{"/mesh/heartbeat", `{"appId":"a","instanceId":"b","host":"127.0.0.1","port":80,"loadPercent":101}`, 400, "invalid_member", "loadPercent"},
		{"/mesh/heartbeat", `{"appId":"a","instanceId":"b","host":"127.0.0.1","port":80,"status":"sleepy"}`, 400, "invalid_member", "status"},
		{"/mesh/register", `{"appId":"a","host":"127.0.0.1","port":65536}`, 400, "invalid_member", "port"},
		{"/mesh/register", `{"appId":"a","host":"127.0.0.1","port":-1}`, 400, "invalid_member", "port"},
		{"/mesh/register", `{"appId":"A b","host":"127.0.0.1","port":80}`, 400, "invalid_member", "appId"},
		{"/mesh/register", `{"appId":"` + long + `","host":"127.0.0.1","port":80}`, 400, "invalid_member", "appId"},
		{"/mesh/register", `{"appId":"a\u0000","host":"127.0.0.1","port":80}`, 400, "invalid_member", "appId"},
		{"/mesh/register", `{"appId":"a:b","host":"127.0.0.1","port":80}`, 400, "invalid_member", "appId"},
		{"/mesh/register", register(`"services":["ok","Not Ok"]`), 400, "invalid_member", "services[1]"},
		{"/mesh/register", register(`"services":["ok",7]`), 400, "invalid_member", "services"},
		{"/mesh/register", register(`"status":"sleepy"`), 400, "invalid_member", "status"},
		{"/mesh/register", register(`"maxConnections":-1`), 400, "invalid_member", "maxConnections"},
		{"/mesh/register", register(`"externalHost":"http://x"`), 400, "invalid_member", "externalHost"},
		{"/mesh/endpoints/get", `{"appId":"a/b"}`, 400, "invalid_member", "appId"},
		{"/mesh/route", `{"appId":"nobody"}`, 404, "unknown_target", ""},
		{"/orchestrator/service-mappings/set", `{"mappings":{"Not Ok":"a"}}`, 400, "invalid_member", "mappings"},
		{"/orchestrator/service-mappings/set", `{"mappings":{"a":"Not Ok"}}`, 400, "invalid_member", "mappings.a"},
		{"/orchestrator/service-mappings/set", `{"mappings":{"a":7}}`, 400, "invalid_member", "mappings"},
		{"/orchestrator/service-mappings/set", `{"mappings":{},"sourceInstanceId":"Not Ok"}`, 400, "invalid_member", "sourceInstanceId"},
		{"/orchestrator/config/set", `{"expectedVersion":-1}`, 400, "invalid_member", "expectedVersion"},
		{"/orchestrator/config/set", `{"expectedVersion":0,"defaultAppId":"Not Ok"}`, 400, "invalid_member", "defaultAppId"},
		{"/orchestrator/config/set", `{"expectedVersion":0,"settings":"text"}`, 400, "invalid_member", "settings"},
		{"/orchestrator/config/history", `{"limit":0}`, 400, "invalid_member", "limit"},
		{"/orchestrator/config/history", `{"limit":101}`, 400, "invalid_member", "limit"},
		{"/orchestrator/config/rollback", `{"version":-1}`, 400, "invalid_member", "version"},
		{"/orchestrator/config/rollback", `{"version":1,"expectedVersion":-1}`, 400, "invalid_member", "expectedVersion"},
		{"/mesh/targets", `{"appId":"Not Ok"}`, 400, "invalid_member", "appId"},
		{"/v1.0/invoke/Not-Ok!/method/x", `{}`, 400, "invalid_member", ""},
	} {
		target.Refuses(t, c.path, c.body, c.status, c.code, c.member)
	}
}

func FuzzBodies(f *testing.F) {
	n := start(f)
	Fuzz(f, Target{URL: n.url, Client: n.client}, endpoints())
}
