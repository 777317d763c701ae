package mesh_test

import (
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func TestValidateNamesTheMember(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*mesh.Endpoint)
		member string // empty: valid
	}{
		{"as it is", func(*mesh.Endpoint) {}, ""},
		{"dots, dashes, digits", func(e *mesh.Endpoint) { e.AppID = "0bannou.world-2" }, ""},
		{"IPv6", func(e *mesh.Endpoint) { e.Host = "fd00::1" }, ""},
		{"a container's name", func(e *mesh.Endpoint) { e.Host = "game_server-1" }, ""},
		{"full load", func(e *mesh.Endpoint) { e.LoadPercent = 100 }, ""},
		{"no appId", func(e *mesh.Endpoint) { e.AppID = "" }, "appId"},
		{"upper case", func(e *mesh.Endpoint) { e.AppID = "Bannou" }, "appId"},
		{"a colon would split the key", func(e *mesh.Endpoint) { e.AppID = "a:b" }, "appId"},
		{"a slash", func(e *mesh.Endpoint) { e.InstanceID = "a/b" }, "instanceId"},
		{"too long", func(e *mesh.Endpoint) { e.InstanceID = strings.Repeat("a", 129) }, "instanceId"},
		{"too long together", func(e *mesh.Endpoint) {
			e.AppID, e.InstanceID = strings.Repeat("a", 128), strings.Repeat("b", 128)
		}, "instanceId"},
		{"no host", func(e *mesh.Endpoint) { e.Host = "" }, "host"},
		{"a URL as host", func(e *mesh.Endpoint) { e.Host = "http://10.0.0.1" }, "host"},
		{"host with port", func(e *mesh.Endpoint) { e.Host = "10.0.0.1:80" }, "host"},
		{"host with path", func(e *mesh.Endpoint) { e.Host = "node/x" }, "host"},
		{"host with user", func(e *mesh.Endpoint) { e.Host = "user@node" }, "host"},
		{"externalHost", func(e *mesh.Endpoint) { e.ExternalHost = "a b" }, "externalHost"},
		{"port 0", func(e *mesh.Endpoint) { e.Port = 0 }, "port"},
		{"port 65536", func(e *mesh.Endpoint) { e.Port = 65536 }, "port"},
		{"load above", func(e *mesh.Endpoint) { e.LoadPercent = 100.5 }, "loadPercent"},
		{"load NaN", func(e *mesh.Endpoint) { e.LoadPercent = math.NaN() }, "loadPercent"},
		{"status", func(e *mesh.Endpoint) { e.Status = "fine" }, "status"},
		{"connections", func(e *mesh.Endpoint) { e.CurrentConnections = -1 }, "currentConnections"},
		{"a service", func(e *mesh.Endpoint) { e.Services = []string{"state", "Mesh"} }, "services[1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := endpoint("bannou", "node-1", "state")
			c.change(&e)
			err := e.Validate()
			if c.member == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, mesh.ErrInvalid)
			var wrong *mesh.InvalidError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.member, wrong.Member)
			assert.True(t, strings.HasPrefix(err.Error(), c.member+" "), err.Error())
		})
	}
}

func TestEndpointIsTheContractsEntry(t *testing.T) {
	raw, err := json.Marshal(endpoint("bannou", "node-1", "state"))
	require.NoError(t, err)
	assert.JSONEq(t, `{"appId":"bannou","instanceId":"node-1","host":"127.0.0.1","port":3500,"status":"","loadPercent":0,
		"maxConnections":0,"currentConnections":0,"lastSeen":"0001-01-01T00:00:00Z","registeredAt":"0001-01-01T00:00:00Z",
		"services":["state"]}`, string(raw))
}

func TestUsable(t *testing.T) {
	with := func(statuses ...mesh.Status) (all []mesh.Endpoint) {
		for i, s := range statuses {
			e := endpoint("a", string(rune('a'+i)))
			e.Status = s
			all = append(all, e)
		}
		return all
	}
	ids := func(all []mesh.Endpoint) (s string) {
		for _, e := range all {
			s += e.InstanceID
		}
		return s
	}
	h, d, u, s := mesh.StatusHealthy, mesh.StatusDegraded, mesh.StatusUnavailable, mesh.StatusShuttingDown
	assert.Equal(t, "ac", ids(mesh.Usable(with(h, d, h, u, s))))
	assert.Equal(t, "ac", ids(mesh.Usable(with(d, u, d, s))), "degraded ones serve when there is nothing better")
	assert.Empty(t, mesh.Usable(with(u, s)))
	assert.Empty(t, mesh.Usable(nil))
}
