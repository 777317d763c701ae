package config_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
)

type flags struct {
	File config.File `name:"config"`
	config.Config
}

// parse reads settings as `bannou serve` does.
func parse(t *testing.T, args ...string) (flags, error) {
	t.Helper()
	var f flags
	p, err := kong.New(&f, kong.Name("bannou"), kong.DefaultEnvars("BANNOU"), kong.Writers(io.Discard, io.Discard))
	require.NoError(t, err)
	if _, err := p.Parse(args); err != nil {
		return f, err
	}
	if f.Messaging.DaprTopics, err = f.File.DaprTopics(); err != nil {
		return f, err
	}
	if f.State.Stores, err = f.File.Stores(); err != nil {
		return f, err
	}
	if f.State.Mirrors, err = f.File.Mirrors(); err != nil {
		return f, err
	}
	if f.Apps, err = f.File.Apps(); err != nil {
		return f, err
	}
	if f.Mesh.Access, err = f.File.MeshAccess(); err != nil {
		return f, err
	}
	if f.Mesh.Resilience, err = f.File.Resilience(); err != nil {
		return f, err
	}
	if f.Events.Access, err = f.File.EventsAccess(); err != nil {
		return f, err
	}
	return f, f.Resolve()
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "bannou.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func TestDefaultsAreTheEmbeddedNode(t *testing.T) {
	f, err := parse(t)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:3500", f.Listen)
	require.Equal(t, []string{"messaging", "state", "mesh", "events", "accounts", "auth", "permissions", "connect", "sagas", "game-session"}, f.Services)
	require.Equal(t, "memory", f.Messaging.Backend)
	require.Equal(t, 15*time.Second, f.DrainTimeout)
	stores := f.AllStores()
	require.Len(t, stores, 13)
	require.Equal(t, "memory", stores["auth"].Backend)
	require.Equal(t, "sqlite", stores["accounts"].Backend)
}

// A setting has one value, and everyone must be able to say which of the four it is.
func TestFlagBeatsVariableBeatsFileBeatsDefault(t *testing.T) {
	name := file(t, "messaging:\n  prefetchCount: 20\n  retryDelayMs: 21\n  retryMaxAttempts: 22\nappId: from-file\n")
	t.Setenv("BANNOU_MESSAGING_PREFETCH_COUNT", "30")
	t.Setenv("BANNOU_MESSAGING_RETRY_DELAY_MS", "31")
	f, err := parse(t, "--config", name, "--messaging-prefetch-count", "40")
	require.NoError(t, err)
	require.Equal(t, 40, f.Messaging.PrefetchCount, "flag")
	require.Equal(t, 31, f.Messaging.RetryDelayMs, "variable")
	require.Equal(t, 22, f.Messaging.RetryMaxAttempts, "file")
	require.Equal(t, "from-file", f.AppID, "file")
	require.Equal(t, "bannou", f.Messaging.Exchange, "default")
}

func TestFileHoldsListsAndStores(t *testing.T) {
	name := file(t, `
services: [state, mesh]
egress:
  allow: [10.0.0.0/8, "fd00::/8"]
state:
  redisUrl: redis://localhost:6379
  stores:
    accounts: {backend: sqlite, tableName: people, indexes: [email], publishChanges: true}
    scores: {backend: redis, keyPrefix: s, defaultTtl: 60}
`)
	f, err := parse(t, "--config", name)
	require.NoError(t, err)
	require.Equal(t, []string{"state", "mesh"}, f.Services)
	require.Equal(t, []string{"10.0.0.0/8", "fd00::/8"}, f.Egress.Allow)
	stores := f.AllStores()
	require.Len(t, stores, 14)
	require.Equal(t, config.Store{Backend: "sqlite", TableName: "people", Indexes: []string{"email"}, PublishChanges: true}, stores["accounts"])
	require.Equal(t, config.Store{Backend: "redis", KeyPrefix: "s", DefaultTTL: 60}, stores["scores"])
	require.Equal(t, "redis", stores["auth"].Backend, "the default stores follow the servers that are configured")
}

// Beyond loopback a node wants to know who calls, or to be told that it need not.
func TestBeyondLoopbackANodeAsksWhoCalls(t *testing.T) {
	for _, args := range [][]string{
		{"--mesh-token", "secret-0123456789"}, {"--mesh-token-file", "t"},
		{"--mesh-tls-cert-file", "c", "--mesh-tls-key-file", "k", "--mesh-tls-ca-file", "a"},
	} {
		f, err := parse(t, append(args, "--listen", "0.0.0.0:3500")...)
		require.NoError(t, err)
		require.True(t, f.Guarded())
		require.False(t, f.Open())
	}
	for address, open := range map[string]bool{"0.0.0.0:3500": true, "192.0.2.1:3500": true, "127.0.0.1:3500": false, "[::1]:3500": false, "localhost:3500": false} {
		f, err := parse(t, "--insecure", "--listen", address)
		require.NoError(t, err)
		require.Equal(t, open, f.Open(), address)
	}
	t.Setenv("BANNOU_MESH_TOKEN", "secret-0123456789")
	name := file(t, "mesh:\n  access:\n    state: [game, game.eu]\n    game.eu: []\n    nobody:\n    everyone: [\"*\"]\n")
	f, err := parse(t, "--insecure", "--listen", "0.0.0.0:3500", "--config", name)
	require.NoError(t, err)
	require.False(t, f.Open())
	require.Equal(t, map[string][]string{"state": {"game", "game.eu"}, "game.eu": {}, "nobody": nil, "everyone": {"*"}}, f.Mesh.Access)
}

func TestQueueTypeIsOneThatTheBrokerHas(t *testing.T) {
	f, err := parse(t)
	require.NoError(t, err)
	require.Equal(t, "classic", f.Messaging.RabbitMQQueueType)
	f, err = parse(t, "--config", file(t, "messaging:\n  rabbitmqQueueType: quorum\n"))
	require.NoError(t, err)
	require.Equal(t, "quorum", f.Messaging.RabbitMQQueueType)
	_, err = parse(t, "--messaging-rabbitmq-queue-type", "mirrored")
	require.ErrorContains(t, err, "classic")
	require.ErrorContains(t, err, "quorum")
}

func TestVariableNamesTheFile(t *testing.T) {
	t.Setenv("BANNOU_CONFIG", file(t, "appId: from-file\n"))
	f, err := parse(t)
	require.NoError(t, err)
	require.Equal(t, "from-file", f.AppID)
}

func TestOldNamesOfTheBackends(t *testing.T) {
	t.Setenv("BANNOU_MESSAGING_BACKEND", "masstransit")
	t.Setenv("BANNOU_USE_NATIVE_MESSAGING", "true")
	t.Setenv("BANNOU_USE_NATIVE_STATE", "true")
	t.Setenv("BANNOU_USE_NATIVE_MESH", "true")
	t.Setenv("BANNOU_DAPR_ENABLED", "false")
	f, err := parse(t, "--messaging-rabbitmq-urls", "amqp://localhost")
	require.NoError(t, err)
	require.Equal(t, "rabbitmq", f.Messaging.Backend)
}

// Sentinels take the place of the address of a Redis, and need the name by which they know it.
func TestMessagingTakesSentinels(t *testing.T) {
	f, err := parse(t, "--messaging-backend", "redis", "--messaging-redis-sentinel-urls", "redis://a:26379,redis://b:26379",
		"--messaging-redis-master-name", "events", "--messaging-redis-wait-replicas", "1")
	require.NoError(t, err)
	require.Equal(t, []string{"redis://a:26379", "redis://b:26379"}, f.Messaging.RedisSentinelURLs)
	require.Empty(t, f.Messaging.RedisURL)
	_, err = parse(t, "--messaging-backend", "redis", "--messaging-redis-sentinel-urls", "redis://a:26379")
	require.ErrorContains(t, err, "--messaging-redis-master-name")
	_, err = parse(t, "--messaging-backend", "redis", "--messaging-redis-sentinel-urls", "http://a", "--messaging-redis-master-name", "events")
	require.ErrorContains(t, err, "--messaging-redis-sentinel-urls")
	_, err = parse(t, "--messaging-backend", "redis", "--messaging-redis-url", "redis://a", "--messaging-redis-wait-replicas", "-1")
	require.ErrorContains(t, err, "--messaging-redis-wait-replicas")
}

// The bus and the stores may share one Redis.
func TestMessagingTakesTheStoresRedis(t *testing.T) {
	f, err := parse(t, "--messaging-backend", "redis", "--state-redis-url", "redis://localhost:6379/1")
	require.NoError(t, err)
	require.Equal(t, "redis://localhost:6379/1", f.Messaging.RedisURL)
	f, err = parse(t, "--messaging-backend", "redis", "--state-redis-url", "redis://localhost:6379/1", "--messaging-redis-url", "redis://localhost:6379/2")
	require.NoError(t, err)
	require.Equal(t, "redis://localhost:6379/2", f.Messaging.RedisURL)
}

// The Redis of the stores may be a cluster, or one that Sentinels watch. The bus takes the latter too, and no cluster.
func TestStoresTakeAClusterOrSentinels(t *testing.T) {
	f, err := parse(t, "--state-redis-cluster-urls", "redis://:pw@a:7000,redis://:pw@b:7001")
	require.NoError(t, err)
	require.Equal(t, []string{"redis://:pw@a:7000", "redis://:pw@b:7001"}, f.State.RedisClusterURLs)
	require.Equal(t, "redis", f.AllStores()["auth"].Backend)

	f, err = parse(t, "--config", file(t, "state:\n  redisSentinelUrls: [redis://a:26379, redis://b:26379]\n  redisMasterName: stores\n"), "--messaging-backend", "redis")
	require.NoError(t, err)
	require.Equal(t, "redis", f.AllStores()["auth"].Backend)
	require.Equal(t, f.State.RedisSentinelURLs, f.Messaging.RedisSentinelURLs)
	require.Equal(t, "stores", f.Messaging.RedisMasterName)
	f, err = parse(t, "--state-redis-cluster-urls", "redis://a:7000", "--messaging-backend", "redis", "--messaging-redis-url", "redis://c")
	require.NoError(t, err)
	require.Equal(t, "redis://c", f.Messaging.RedisURL)
	require.Empty(t, f.Messaging.RedisSentinelURLs)
}

func TestMistakesSayWhatAndWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name string
		env  [2]string
		args []string
		file string
		want string
	}{
		{name: "unknown service", args: []string{"--services", "messaging,billing"}, want: `unknown service "billing": choose from messaging, state, mesh, events, accounts, auth, permissions, connect, sagas, game-session, or all`},
		{name: "service twice", args: []string{"--services", "state,state"}, want: `service "state" is named twice`},
		{name: "backend", args: []string{"--messaging-backend", "kafka"}, want: `messaging backend "kafka" is not one of this node's: choose memory, rabbitmq, redis or dapr`},
		{name: "no address", args: []string{"--messaging-backend", "rabbitmq"}, want: "needs an address: set --messaging-rabbitmq-urls"},
		{name: "no redis", args: []string{"--messaging-backend", "redis"}, want: "needs an address: set --messaging-redis-url"},
		{name: "not a redis", args: []string{"--messaging-backend", "redis", "--messaging-redis-url", "http://localhost"}, want: "--messaging-redis-url"},
		{name: "disagreement", env: [2]string{"BANNOU_USE_NATIVE_STATE", "false"}, args: []string{"--state-backend", "native"}, want: "BANNOU_USE_NATIVE_STATE is false and BANNOU_STATE_BACKEND is native: they disagree"},
		{name: "not a bool", env: [2]string{"BANNOU_USE_NATIVE_MESH", "maybe"}, want: `BANNOU_USE_NATIVE_MESH is "maybe": it is true or false`},
		{name: "an app of Dapr without an API", args: []string{"--dapr-app-id", "shop"}, want: "which is served where --dapr-listen says"},
		{name: "an API without an app", args: []string{"--dapr-listen", "127.0.0.1:3501"}, want: "name it with --dapr-app-id"},
		{name: "an app with the node's name", args: []string{"--dapr-listen", "127.0.0.1:3501", "--dapr-app-id", "bannou"}, want: "this node's own app-id"},
		{name: "an API for strangers", args: []string{"--dapr-listen", "0.0.0.0:3501", "--dapr-app-id", "shop"}, want: "set --dapr-api-token"},
		{name: "redeliveries", args: []string{"--dapr-listen", "127.0.0.1:3501", "--dapr-app-id", "shop", "--dapr-retry-max-attempts=-2"}, want: "choose from 0 to 1000"},
		{name: "beyond loopback", args: []string{"--listen", "0.0.0.0:3500"}, want: "beyond loopback"},
		{name: "what to do beyond loopback", args: []string{"--listen", "[::]:3500"}, want: "(--mesh-token-file) or certificates (--mesh-tls-cert-file, --mesh-tls-key-file, --mesh-tls-ca-file), or listen on 127.0.0.1, or give --insecure"},
		{name: "two tokens", args: []string{"--mesh-token", "secret-0123456789", "--mesh-token-file", "t"}, want: "remove one of them"},
		{name: "a short token", args: []string{"--mesh-token", "secret"}, want: "--mesh-token has 6 bytes"},
		{name: "a certificate alone", args: []string{"--mesh-tls-cert-file", "c"}, want: "go together"},
		{name: "no authority", args: []string{"--mesh-tls-cert-file", "c", "--mesh-tls-key-file", "k"}, want: "go together"},
		{name: "an authority alone", args: []string{"--mesh-tls-ca-file", "c"}, want: "go together"},
		{name: "rules without names", file: "mesh:\n  access: {state: [game]}\n", want: "mesh.access says who may call what, and nothing shows who calls"},
		{name: "no rules", file: "mesh:\n  token: secret-0123456789\n  access:\n", want: "mesh.access is empty"},
		{name: "a rule that is no list", file: "mesh:\n  token: secret-0123456789\n  access: {state: game}\n", want: "mesh.access"},
		{name: "a rule about no name", file: "mesh:\n  token: secret-0123456789\n  access: {State: [game]}\n", want: "mesh.access.State: name a service, an app-id"},
		{name: "a rule for no app", file: "mesh:\n  token: secret-0123456789\n  access: {state: [A Game]}\n", want: `mesh.access.state names "A Game"`},
		{name: "no app-id", args: []string{"--app-id="}, want: "--app-id is empty"},
		{name: "no folder", env: [2]string{"BANNOU_DATA_DIR", ""}, want: "--data-dir is empty"},
		{name: "listen", args: []string{"--listen", "3500"}, want: `--listen "3500": write it as host:port`},
		{name: "port", args: []string{"--listen", "localhost:99999"}, want: `port "99999" is not a number from 0 to 65535`},
		{name: "advertise", args: []string{"--advertise", ":80"}, want: "a host is missing"},
		{name: "network", args: []string{"--egress-allow", "10.0.0.1"}, want: `"10.0.0.1" is not a network`},
		{name: "prefetch", args: []string{"--messaging-prefetch-count", "0"}, want: "choose from 1 to 65535"},
		{name: "outbox after", args: []string{"--messaging-outbox-after", "0s"}, want: "choose from 1ms to 1m"},
		{name: "outbox limit", args: []string{"--messaging-outbox-max-events", "0"}, want: "choose from 1 to"},
		{name: "drain", args: []string{"--drain-timeout", "0s"}, want: "choose a positive duration"},
		{name: "duration", args: []string{"--drain-timeout", "fast"}, want: "--drain-timeout"},
		{name: "heartbeat", args: []string{"--mesh-heartbeat-interval", "60s"}, want: "choose from 1ms to 50s"},
		{name: "balancer", args: []string{"--mesh-balancer", "fair"}, want: "--mesh-balancer must be one of"},
		{name: "capacity", args: []string{"--mesh-max-connections", "0"}, want: "choose from 1 to"},
		{name: "drain notice", args: []string{"--mesh-drain-notice=-1s"}, want: "choose 0 or a positive duration"},
		{name: "probe interval", args: []string{"--mesh-probe-interval", "1m"}, want: "choose 0 for never, or from 1s to 30s"},
		{name: "probe timeout", args: []string{"--mesh-probe-timeout", "0s"}, want: "--mesh-probe-timeout 0s: choose from 1ms to 1m"},
		{name: "probe failures", args: []string{"--mesh-probe-failures", "0"}, want: "choose from 1 to 1000"},
		{name: "zone", args: []string{"--mesh-zone", "EU 1"}, want: `--mesh-zone: zone must be lower-case letters`},
		{name: "slow start", args: []string{"--mesh-slow-start=-1s"}, want: "--mesh-slow-start -1s: choose 0 or a positive duration"},
		{name: "ejection failures", args: []string{"--mesh-ejection-failures", "0"}, want: "choose from 1 to 1000"},
		{name: "ejection percent", args: []string{"--mesh-ejection-percent", "101"}, want: "choose from 1 to 100"},
		{name: "ejection window", args: []string{"--mesh-ejection-window", "0s"}, want: "choose a positive duration"},
		{name: "ejection time", args: []string{"--mesh-ejection-time", "0s"}, want: "choose a positive duration"},
		{name: "panic", args: []string{"--mesh-panic-percent", "101"}, want: "choose from 0 to 100"},
		{name: "redis scheme", args: []string{"--state-redis-url", "http://:secret@h"}, want: "the URL begins with redis://"},
		{name: "redis twice", args: []string{"--state-redis-url", "redis://:secret@h", "--state-redis-cluster-urls", "redis://:secret@h"}, want: "three ways to name the Redis of the stores: give one of them"},
		{name: "sentinels without a name", args: []string{"--state-redis-sentinel-urls", "redis://h"}, want: "set --state-redis-master-name"},
		{name: "a name without sentinels", args: []string{"--state-redis-url", "redis://h", "--state-redis-master-name", "m"}, want: "set --state-redis-sentinel-urls, or leave it out"},
		{name: "cluster scheme", args: []string{"--state-redis-cluster-urls", "unix:///secret.sock"}, want: "--state-redis-cluster-urls: the URL begins with redis:// or rediss://"},
		{name: "cluster database", args: []string{"--state-redis-cluster-urls", "redis://h:1/3"}, want: "a Redis Cluster has no databases but the first"},
		{name: "cluster passwords", args: []string{"--state-redis-cluster-urls", "redis://:secret@h:1,redis://:secret2@h:2"}, want: "address 2 differs from the first"},
		{name: "bus on a cluster", args: []string{"--state-redis-cluster-urls", "redis://h:1", "--messaging-backend", "redis"}, want: "cannot be a Redis Cluster"},
		{name: "no such file", args: []string{"--config", "nowhere.yaml"}, want: "cannot read the configuration file"},
		{name: "not yaml", file: "a: [", want: "is not a YAML file of settings"},
		{name: "unknown member", file: "messaging:\n  retryDelay: 5\n", want: "no setting is called messaging.retryDelay"},
		{name: "a file in the file", file: "config: other.yaml\n", want: "no setting is called config"},
		{name: "group for a value", file: "listen: {port: 1}\n", want: "no setting is called listen.port"},
		{name: "list for a value", file: "state: {redisUrl: [\"redis://u:secret@h\"]}\n", want: "state.redisUrl is a single value, not a list"},
		{name: "store member", file: "state:\n  stores:\n    a: {backend: sqlite, ttl: 5}\n", want: "ttl"},
		{name: "store backend", file: "state:\n  stores:\n    a: {backend: mongo}\n", want: `state.stores.a.backend is "mongo"`},
		{name: "app unknown", file: "apps:\n  game: {tokenFile: t}\nstate:\n  stores:\n    a: {backend: sqlite, access: {read: [game, web]}}\n",
			want: `state.stores.a.access.read names the app "web", which is not under apps`},
		{name: "apps missing", file: "state:\n  stores:\n    a: {backend: sqlite, access: {write: [web]}}\n", want: `state.stores.a.access.write names the app "web"`},
		{name: "app without token", file: "apps:\n  game: {}\n  web: {tokenFile: t}\n", want: "apps.game.tokenFile is missing"},
		{name: "token in the file", file: "apps:\n  game: {token: secret}\n", want: "token"},
		{name: "access empty", file: "state:\n  stores:\n    a:\n      backend: sqlite\n      access:\n", want: "state.stores.a.access is empty"},
		{name: "access member", file: "state:\n  stores:\n    a: {backend: sqlite, access: {reads: []}}\n", want: "reads"},
		{name: "access is no list", file: "state:\n  stores:\n    a: {backend: sqlite, access: {read: game}}\n", want: "read"},
		{name: "store address", file: "state:\n  stores:\n    a: {backend: redis}\n", want: "no address of it is set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			if c.file != "" {
				c.args = append(c.args, "--config", file(t, c.file))
			}
			_, err := parse(t, c.args...)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}
