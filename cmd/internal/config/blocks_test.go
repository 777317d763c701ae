package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// ways are the choices that matter to a test, in one line.
func ways(f flags) [3]string {
	return [3]string{f.MessagingOn("orders"), f.StateOn("accounts"), f.MeshOn("stock")}
}

// Each building block goes its own way, and each way has more than one name.
func TestBlocksGoTheirOwnWays(t *testing.T) {
	t.Setenv("DAPR_HTTP_PORT", "3510")
	const url = "amqp://localhost"
	for name, c := range map[string]struct {
		env    map[string]string
		args   []string
		want   [3]string
		broker string
	}{
		"nothing chosen":     {want: [3]string{"native", "native", "native"}, broker: "memory"},
		"no sidecar":         {env: map[string]string{"BANNOU_DAPR_ENABLED": "false"}, want: [3]string{"native", "native", "native"}, broker: "memory"},
		"a sidecar for all":  {env: map[string]string{"BANNOU_DAPR_ENABLED": "true"}, want: [3]string{"dapr", "dapr", "dapr"}, broker: "memory"},
		"the proposal, 14.3": {env: map[string]string{"BANNOU_DAPR_ENABLED": "true", "BANNOU_MESSAGING_BACKEND": "masstransit", "BANNOU_STATE_BACKEND": "native", "BANNOU_MESH_BACKEND": "native"}, args: []string{"--messaging-rabbitmq-urls", url}, want: [3]string{"native", "native", "native"}, broker: "rabbitmq"},
		"the proposal, 10.4": {env: map[string]string{"BANNOU_DAPR_ENABLED": "true", "BANNOU_USE_NATIVE_MESSAGING": "false", "BANNOU_USE_NATIVE_STATE": "false", "BANNOU_USE_NATIVE_MESH": "false"}, want: [3]string{"dapr", "dapr", "dapr"}, broker: "memory"},
		"one block moved":    {env: map[string]string{"BANNOU_DAPR_ENABLED": "true", "BANNOU_USE_NATIVE_MESH": "true"}, want: [3]string{"dapr", "dapr", "native"}, broker: "memory"},
		"state only":         {env: map[string]string{"BANNOU_STATE_BACKEND": "dapr"}, want: [3]string{"native", "dapr", "native"}, broker: "memory"},
		"two names, one way": {env: map[string]string{"BANNOU_STATE_BACKEND": "dapr", "BANNOU_USE_NATIVE_STATE": "false"}, want: [3]string{"native", "dapr", "native"}, broker: "memory"},
		"a broker beside":    {env: map[string]string{"BANNOU_MESSAGING_BACKEND": "dapr"}, args: []string{"--messaging-rabbitmq-urls", url}, want: [3]string{"dapr", "native", "native"}, broker: "rabbitmq"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			f, err := parse(t, c.args...)
			require.NoError(t, err)
			require.Equal(t, c.want, ways(f))
			require.Equal(t, c.broker, f.Messaging.Backend, "the node's own broker")
		})
	}
}

// A service, a store or an app-id may go another way than the others.
func TestSomeGoAnotherWay(t *testing.T) {
	t.Setenv("DAPR_HTTP_PORT", "3510")
	t.Setenv("BANNOU_STATE_BACKEND_ACCOUNTS", "dapr")
	t.Setenv("BANNOU_STATE_BACKEND_GAME_SESSION", "dapr")
	t.Setenv("BANNOU_MESSAGING_BACKEND_ORDERS", "masstransit")
	t.Setenv("BANNOU_MESSAGING_BACKEND_STOCK", "")
	t.Setenv("BANNOU_MESH_BACKEND_STOCK", "native")
	f, err := parse(t, "--messaging-backend", "dapr", "--messaging-rabbitmq-urls", "amqp://localhost", "--mesh-backend", "dapr",
		"--config", file(t, "state:\n  backends: [realm=dapr]\n  redisUrl: redis://localhost\n  stores:\n    accounts: {backend: redis, keyPrefix: \"shop||\", defaultTtl: 5}\n    scores: {backend: dapr}\n"))
	require.NoError(t, err)
	require.Equal(t, [3]string{"native", "dapr", "native"}, ways(f))
	require.Equal(t, "dapr", f.MessagingOn("stock"), "an empty variable is none")
	require.Equal(t, "rabbitmq", f.Messaging.Backend)
	stores := f.AllStores()
	for _, name := range []string{"accounts", "game-session", "realm", "scores"} {
		require.Equal(t, "dapr", stores[name].Backend, name)
	}
	require.Equal(t, "redis", stores["auth"].Backend)
	require.Empty(t, stores["accounts"].KeyPrefix, "which is that of the native place")
	require.Equal(t, 5, stores["accounts"].DefaultTTL)
	require.Equal(t, "dapr", f.BackendOf("accounts", "mysql"))
	require.Equal(t, "sqlite", f.BackendOf("orders", "mysql"))
	require.Contains(t, f.ByName(), "state accounts=dapr (BANNOU_STATE_BACKEND_ACCOUNTS)")
}

func TestContradictionsNameBoth(t *testing.T) {
	t.Setenv("DAPR_HTTP_PORT", "3510")
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		file string
		want []string
	}{
		{"a backend and its older name", map[string]string{"BANNOU_STATE_BACKEND": "dapr", "BANNOU_USE_NATIVE_STATE": "true"}, nil, "", []string{"BANNOU_USE_NATIVE_STATE is true", "BANNOU_STATE_BACKEND is dapr"}},
		{"no sidecar, and a backend", map[string]string{"BANNOU_DAPR_ENABLED": "false", "BANNOU_MESH_BACKEND": "dapr"}, nil, "", []string{"BANNOU_DAPR_ENABLED is false", "BANNOU_MESH_BACKEND is dapr"}},
		{"no sidecar, and an older name", map[string]string{"BANNOU_DAPR_ENABLED": "false", "BANNOU_USE_NATIVE_MESSAGING": "false"}, nil, "", []string{"BANNOU_DAPR_ENABLED is false", "BANNOU_USE_NATIVE_MESSAGING is false"}},
		{"no sidecar, and a store", map[string]string{"BANNOU_DAPR_ENABLED": "false", "BANNOU_STATE_BACKEND_ACCOUNTS": "dapr"}, nil, "", []string{"BANNOU_DAPR_ENABLED is false", "BANNOU_STATE_BACKEND_ACCOUNTS says"}},
		{"no sidecar, and a store of the file", map[string]string{"BANNOU_DAPR_ENABLED": "false"}, nil, "state:\n  stores: {scores: {backend: dapr}}\n", []string{"BANNOU_DAPR_ENABLED is false", "state.stores.scores.backend is dapr"}},
		{"a store in the file and a variable", map[string]string{"BANNOU_STATE_BACKEND_SCORES": "native"}, nil, "state:\n  stores: {scores: {backend: dapr}}\n", []string{"state.stores.scores.backend", "BANNOU_STATE_BACKEND_SCORES"}},
		{"a list and a variable", map[string]string{"BANNOU_MESH_BACKEND_STOCK": "native"}, []string{"--mesh-backends", "stock=dapr"}, "", []string{"--mesh-backends", "BANNOU_MESH_BACKEND_STOCK"}},
		{"two brokers", map[string]string{"BANNOU_MESSAGING_BACKEND_ORDERS": "redis"}, []string{"--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", "amqp://localhost"}, "", []string{"BANNOU_MESSAGING_BACKEND is rabbitmq", "BANNOU_MESSAGING_BACKEND_ORDERS says"}},
		{"a native broker without a name", map[string]string{"BANNOU_MESSAGING_BACKEND": "dapr", "BANNOU_MESSAGING_BACKEND_ORDERS": "native"}, nil, "", []string{"BANNOU_MESSAGING_BACKEND_ORDERS", "say orders=rabbitmq"}},
		{"an unknown backend", map[string]string{"BANNOU_STATE_BACKEND_ACCOUNTS": "redis"}, nil, "", []string{"BANNOU_STATE_BACKEND_ACCOUNTS says accounts=redis"}},
		{"an unknown way", map[string]string{"BANNOU_MESH_BACKEND": "linkerd"}, nil, "", []string{"choose native or dapr"}},
		{"the sidecar is the node", nil, []string{"--state-backend", "dapr", "--listen", "127.0.0.1:3510"}, "", []string{"where this node listens itself"}},
		{"events for strangers", nil, []string{"--messaging-backend", "dapr", "--dapr-sidecar-app-listen", "0.0.0.0:8080"}, "", []string{"--dapr-sidecar-app-token"}},
		{"calls for strangers, of a native node", nil, []string{"--dapr-sidecar-app-listen", "0.0.0.0:8080"}, "", []string{"--dapr-sidecar-app-token"}},
		{"two stores in one component", nil, []string{"--state-backend", "dapr", "--dapr-sidecar-state-components", "a=x,b=x"}, "", []string{"the stores a and b", "x"}},
		{"a store in the component of another's name", nil, []string{"--state-backend", "dapr", "--dapr-sidecar-state-components", "accounts=realm"}, "", []string{"the store accounts", "that of the store realm"}},
		{"two components of one store", nil, []string{"--state-backend", "dapr", "--dapr-sidecar-state-components", "a=x,a=y"}, "", []string{"the store a", "x", "y"}},
		{"a migration of a store on Dapr", map[string]string{"BANNOU_STATE_BACKEND_SCORES": "dapr"}, nil, "state:\n  stores: {scores: {backend: sqlite, migration: {to: {backend: sqlite, tableName: there}}}}\n", []string{"state.stores.scores.migration.to", "BANNOU_STATE_BACKEND_SCORES"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			args := c.args
			if c.file != "" {
				args = append(args, "--config", file(t, c.file))
			}
			_, err := parse(t, args...)
			require.Error(t, err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// Dapr's own variables say where the sidecar is, and the node's settings count more.
func TestSidecarIsFoundByDaprsVariables(t *testing.T) {
	t.Setenv("DAPR_HTTP_PORT", "3510")
	t.Setenv("DAPR_API_TOKEN", "of-the-sidecar")
	t.Setenv("APP_PORT", "8080")
	t.Setenv("APP_API_TOKEN", "of-the-app")
	f, err := parse(t)
	require.NoError(t, err)
	require.Empty(t, f.Dapr.Sidecar.AppListen, "of a node without Dapr it is nobody's")
	f, err = parse(t, "--state-backend", "dapr", "--dapr-sidecar-state-components", "accounts=people")
	require.NoError(t, err)
	s := f.Dapr.Sidecar
	require.Equal(t, "http://127.0.0.1:3510", s.Endpoint)
	require.Equal(t, "of-the-sidecar", s.Token)
	require.Equal(t, "127.0.0.1:8080", s.AppListen)
	require.Equal(t, "of-the-app", s.AppToken)
	component, prefix := s.Component("accounts")
	require.Equal(t, [2]string{"people", ""}, [2]string{component, prefix})
	component, prefix = s.Component("realm")
	require.Equal(t, [2]string{"realm", ""}, [2]string{component, prefix})
	f, err = parse(t, "--state-backend", "dapr", "--dapr-sidecar-endpoint", "http://sidecar:3500/", "--dapr-sidecar-state-store", "statestore", "--config", file(t, "dapr: {enabled: true}\n"))
	require.NoError(t, err)
	require.Equal(t, "http://sidecar:3500", f.Dapr.Sidecar.Endpoint)
	component, prefix = f.Dapr.Sidecar.Component("realm")
	require.Equal(t, [2]string{"statestore", "realm:"}, [2]string{component, prefix})
}

// A native node that other apps' sidecars still call has the app's token too.
func TestNativeNodeIsCalledBySidecar(t *testing.T) {
	t.Setenv("APP_API_TOKEN", "of-the-app")
	f, err := parse(t, "--dapr-sidecar-app-listen", "127.0.0.1:8080")
	require.NoError(t, err)
	require.Equal(t, "of-the-app", f.Dapr.Sidecar.AppToken)
}

// A node that is native and compares a store with that of a sidecar has to find the sidecar too.
func TestMirrorOnDaprFindsTheSidecar(t *testing.T) {
	t.Setenv("DAPR_HTTP_PORT", "3510")
	t.Setenv("DAPR_API_TOKEN", "of-the-sidecar")
	f, err := parse(t, "--config", file(t, "state:\n  mirrors: {accounts: {to: dapr}}\n"))
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:3510", f.Dapr.Sidecar.Endpoint)
	require.Equal(t, "of-the-sidecar", f.Dapr.Sidecar.Token)
}
