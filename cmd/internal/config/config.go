// Package config is what a node can be told, and where it is told it: flags, environment, a YAML file, defaults.
//
// The order of precedence is: flag, then BANNOU_* variable, then the YAML file, then the default. Every setting has all
// three names, and they follow from one another: --messaging-retry-delay-ms is BANNOU_MESSAGING_RETRY_DELAY_MS is
// messaging.retryDelayMs in the file.
package config

import (
	"time"

	"github.com/bannou-mesh/bannou/services/migration"
)

// Config is everything that `bannou serve` can be told. Its tags are the flags' help, defaults and variables; the key in
// the YAML file follows from the flag's place (see key).
type Config struct {
	Listen        string        `default:"127.0.0.1:3500" help:"Address to serve HTTP on."`
	Insecure      bool          `help:"Accept that whoever reaches a listen address beyond loopback may use this node, when it has neither a token of the mesh nor certificates."`
	Services      []string      `default:"all" help:"Services to run: all, or a list of messaging, state, mesh, events, accounts, auth, permissions, connect, sagas, game-session."`
	AppID         string        `name:"app-id" default:"bannou" help:"Name that this node's instances share in the mesh."`
	InstanceID    string        `name:"instance-id" help:"Name of this instance in the mesh. Default: a random one."`
	Advertise     string        `help:"host:port at which other nodes reach this one. Default: the listen address, or the host's name when that is a wildcard."`
	DataDir       string        `name:"data-dir" default:"./.bannou" help:"Folder of the embedded storage."`
	MigrationFile string        `name:"migration-file" help:"File of what bannou migrate has decided for single stores, services and targets of calls; read at start. Default: migration.json in the data folder."`
	DrainTimeout  time.Duration `name:"drain-timeout" default:"15s" help:"How long requests in flight may take to finish at shutdown."`

	UseNativeMessaging string `name:"use-native-messaging" hidden:"" help:"true or false: the native or the Dapr backend for messaging."`
	UseNativeState     string `name:"use-native-state" hidden:"" help:"true or false: the native or the Dapr backend for state."`
	UseNativeMesh      string `name:"use-native-mesh" hidden:"" help:"true or false: the native or the Dapr backend for the mesh."`

	Log         Log         `embed:"" prefix:"log-"`
	Egress      Egress      `embed:"" prefix:"egress-"`
	Messaging   Messaging   `embed:"" prefix:"messaging-"`
	State       State       `embed:"" prefix:"state-"`
	Mesh        Mesh        `embed:"" prefix:"mesh-"`
	Events      Events      `embed:"" prefix:"events-"`
	Accounts    Accounts    `embed:"" prefix:"accounts-"`
	Auth        Auth        `embed:"" prefix:"auth-"`
	Connect     Connect     `embed:"" prefix:"connect-"`
	GameSession GameSession `embed:"" prefix:"game-session-"`
	Telemetry   Telemetry   `embed:"" prefix:"telemetry-"`
	Dapr        Dapr        `embed:"" prefix:"dapr-"`

	Apps map[string]App `kong:"-"`

	Decisions []migration.Decision `kong:"-"` // of the migration file
	overruled []string             // those of them that a setting overrules, as sentences
	published map[string]string    // how the file has topics published that are shared with apps of Dapr

	// Own is the service of a program that is not bannou itself, which may be chosen beside those of the suite; empty for none.
	Own string `kong:"-"`

	messaging, state, mesh block // what was chosen, once resolved
}

// Log says what is logged and how.
type Log struct {
	Level  string `default:"info" enum:"debug,info,warn,error" help:"Least level to log: debug, info, warn, error."`
	Format string `default:"text" enum:"text,json" help:"Form of the log on standard error: text or json."`
}

// Egress says where this node may send requests on behalf of others.
type Egress struct {
	Allow []string `help:"Networks (CIDR) beside loopback that callbacks and registered endpoints may lie in, such as 10.0.0.0/8."`
}

// Messaging configures the bus.
type Messaging struct {
	Backend                string        `help:"Broker: memory, rabbitmq (alias: masstransit), redis (Redis Streams), or dapr: what a sidecar of Dapr has. Default: memory, or dapr where dapr-enabled is true."`
	Backends               []string      `help:"Another broker for some services: orders=dapr,stock=native. As a variable also BANNOU_MESSAGING_BACKEND_ORDERS=dapr. Native is the node's own broker, of which there is one."`
	RabbitMQURLs           []string      `name:"rabbitmq-urls" help:"RabbitMQ nodes as amqp://user:password@host:port/vhost, of one cluster if several; the first is chosen at random, another one is tried when one dies."`
	RedisURL               string        `name:"redis-url" help:"Redis as redis://user:password@host:port/db, for backend redis; by default the one of the stores."`
	RedisSentinelURLs      []string      `name:"redis-sentinel-urls" help:"Sentinels as redis://user:password@host:port/db, instead of redis-url; user, password and db are those of the Redis that they watch."`
	RedisMasterName        string        `name:"redis-master-name" help:"The name by which the Sentinels know the Redis."`
	RedisWaitReplicas      int           `name:"redis-wait-replicas" default:"0" help:"How many replicas must have an event before its publisher is told that it is there. With fewer than there are a failover may lose what was confirmed."`
	AnnouncePublished      bool          `name:"announce-published" help:"Publish a messaging.message.published event for each event published over HTTP."`
	Outbox                 bool          `default:"true" negatable:"" help:"Keep events on disk while the broker is away: those that are published over HTTP, and those of stores with publishChanges on SQL, each in an outbox of their own. Without a meaning where the broker is memory."`
	OutboxAfter            time.Duration `name:"outbox-after" default:"2s" help:"How long a publish may take before the event is kept instead."`
	OutboxMaxEvents        int           `name:"outbox-max-events" default:"100000" help:"Events that may wait in each outbox; over it, publishing, or changing such a store, is answered with 503."`
	OutboxMaxBytes         int           `name:"outbox-max-bytes" default:"268435456" help:"Bytes of them; over it, the answer is the same."`
	RabbitMQManagementURL  string        `name:"rabbitmq-management-url" help:"RabbitMQ's management API as http://user:password@host:15672, to list the queues of other programs too."`
	RabbitMQQueueType      string        `name:"rabbitmq-queue-type" default:"classic" enum:"classic,quorum" help:"Kind of RabbitMQ's durable queues: classic, or quorum, which a cluster keeps on several nodes. A queue that exists keeps its kind: delete the queues before a change."`
	Exchange               string        `default:"bannou" help:"Topic exchange that events are published to."`
	DeadLetterExchange     string        `name:"dead-letter-exchange" default:"bannou-dlx" help:"Topic exchange that dead letters go to."`
	PrefetchCount          int           `name:"prefetch-count" default:"10" help:"Events of one subscription in work at a time."`
	RetryMaxAttempts       int           `name:"retry-max-attempts" default:"3" help:"Delayed redeliveries of a failing event before it is dead-lettered; 0 for none."`
	RetryDelayMs           int           `name:"retry-delay-ms" default:"5000" help:"Delay before each of those, in milliseconds."`
	MirrorTo               string        `name:"mirror-to" help:"Where the events of mirror-topics are counted too, to see before a switch that none is missing, doubled or late there: rabbitmq, redis, or dapr, where apps of Dapr have them on this broker. Default: none are counted."`
	MirrorTopics           []string      `name:"mirror-topics" help:"The topics whose events are counted on both brokers, by eventId. Their publishers have to publish on both."`
	ErrorWindow            time.Duration `name:"error-window" default:"1m" help:"How long errors of one service, operation and code are gathered into one service.error event."`
	ConnectionRetryDelayMs int           `name:"connection-retry-delay-ms" default:"1000" help:"First delay between attempts to connect, in milliseconds; doubles up to 60 000."`

	DaprTopics map[string]DaprTopic `kong:"-"` // only in the YAML file
}

// State configures the stores.
type State struct {
	Backend  string   `help:"Where stores are: native, on this node's own servers, or dapr, on those of a sidecar of Dapr. Default: native, or dapr where dapr-enabled is true."`
	Backends []string `help:"Another way for some stores: accounts=dapr,orders=native. As a variable also BANNOU_STATE_BACKEND_ACCOUNTS=dapr."`
	RedisURL string   `name:"redis-url" help:"Redis as redis://user:password@host:port/db. Without it, its stores are in memory."`

	RedisClusterURLs  []string `name:"redis-cluster-urls" help:"Nodes of a Redis Cluster as redis://user:password@host:port, instead of redis-url; those that answer tell of the others. User and password are the same for all."`
	RedisSentinelURLs []string `name:"redis-sentinel-urls" help:"Sentinels as redis://user:password@host:port/db, instead of redis-url; user, password and db are those of the Redis that they watch."`
	RedisMasterName   string   `name:"redis-master-name" help:"The name by which the Sentinels know the Redis."`

	MySQLDSN        string           `name:"mysql-dsn" help:"MySQL or MariaDB as user:password@tcp(host:port)/database. Without it, its stores are in SQLite."`
	MySQLReplicaDSN string           `name:"mysql-replica-dsn" help:"A server that follows it, for reads that may be late. Without it, they go to the first one."`
	MySQLMaxConns   int              `name:"mysql-max-conns" default:"32" help:"Connections that are opened at most to each of them."`
	Stores          map[string]Store `kong:"-"`

	Mirrors map[string]Mirror `kong:"-"` // by the store that is compared
}

// Mirror has a store compared with its counterpart in another place; only in the YAML file, under state.mirrors.NAME.
type Mirror struct {
	To        string   `koanf:"to"`
	KeyPrefix string   `koanf:"keyPrefix"`
	TableName string   `koanf:"tableName"`
	Sample    *float64 `koanf:"sample"` // nil: all
	Writes    bool     `koanf:"writes"`
	ETags     bool     `koanf:"etags"`
	NoExpiry  bool     `koanf:"noExpiry"`
}

// Store configures one store; only in the YAML file, under state.stores.NAME. A store of that name replaces the default.
type Store struct {
	Backend        string   `koanf:"backend"`
	KeyPrefix      string   `koanf:"keyPrefix"`
	DefaultTTL     int      `koanf:"defaultTtl"` // seconds
	TableName      string   `koanf:"tableName"`
	Indexes        []string `koanf:"indexes"`
	PublishChanges bool     `koanf:"publishChanges"`
	Access         *Access  `koanf:"access"` // nil: everyone may do everything

	Migration *Migration `koanf:"migration"`
}

// Migration says that a store is being moved to another place. Which of the two is used, `bannou state migrate` decides.
type Migration struct {
	To struct {
		Backend   string `koanf:"backend"`
		KeyPrefix string `koanf:"keyPrefix"`
		TableName string `koanf:"tableName"`
	} `koanf:"to"`
}

// Events configures the log of events.
type Events struct {
	Backend string `default:"auto" enum:"auto,mysql,sqlite,memory" help:"Where the log of events is: auto (MySQL where it is configured, otherwise SQLite), mysql, sqlite, memory."`
	Table   string `default:"events" help:"The log's table. Those beside it have names that begin with it. Nodes with the same table of one database share the log."`

	MasterKey     string `name:"master-key" help:"Key that wraps those of subjects, 32 bytes in base64, as openssl rand -base64 32 makes it; the same for all nodes. Other users of the machine see flags: prefer the variable, or the file. Without one, who has the database has the keys."`
	MasterKeyFile string `name:"master-key-file" help:"File with that key, read at start; on further lines, those that it replaces."`

	Access map[string]Access `kong:"-"` // only in the YAML file: by category
}

// Mesh configures calls between services.
type Mesh struct {
	Backend           string        `help:"How others are called: native, or dapr: through a sidecar of Dapr. Default: native, or dapr where dapr-enabled is true."`
	Backends          []string      `help:"Another way for some app-ids or services: stock=dapr,orders=native. As a variable also BANNOU_MESH_BACKEND_STOCK=dapr."`
	HeartbeatInterval time.Duration `name:"heartbeat-interval" default:"30s" help:"How often this node reports that it lives."`
	MaxConnections    int           `name:"max-connections" default:"1000" help:"Requests at once that count as this node's full load: its capacity, in proportion to which the balancer weighted calls it."`
	DrainNotice       time.Duration `name:"drain-notice" default:"500ms" help:"How long this node still takes requests after it told the mesh that it shuts down, so that callers hear of it first; half of drain-timeout at most. Without a meaning where the broker is memory."`
	ProbeInterval     time.Duration `name:"probe-interval" default:"0s" help:"How often one of the nodes that run the mesh service asks each instance for GET /healthz; one that does not answer is degraded. 0: never."`
	ProbeTimeout      time.Duration `name:"probe-timeout" default:"2s" help:"How long an instance may take to answer a probe."`
	ProbeFailures     int           `name:"probe-failures" default:"3" help:"Probes in a row that an instance does not answer, or with a status of 500 and above, until it is degraded."`
	Balancer          string        `default:"p2c" enum:"p2c,least-connections,weighted,round-robin" help:"How an instance is chosen: p2c (of two drawn by chance the one that is likely to answer first), least-connections, weighted (by reported capacity and load), round-robin."`
	Zone              string        `help:"Where this node runs, such as eu-1a. Calls stay in the zone while five of seven of the target's instances there take requests, and spill over in part when fewer do. Default: zones do not matter."`
	SlowStart         time.Duration `name:"slow-start" default:"10s" help:"How long an instance that is new or back takes to get its whole share of calls, from a tenth on; 0 for at once."`
	Ejection          bool          `default:"true" negatable:"" help:"Leave instances out for a while that fail more than others: connections that break, deadlines that pass, statuses 500 and above."`
	EjectionFailures  int           `name:"ejection-failures" default:"5" help:"Failures in a row that eject an instance."`
	EjectionPercent   int           `name:"ejection-percent" default:"50" help:"Share of failures among 20 calls or more within the window that ejects an instance."`
	EjectionWindow    time.Duration `name:"ejection-window" default:"10s" help:"The window of that share."`
	EjectionTime      time.Duration `name:"ejection-time" default:"10s" help:"How long an instance is ejected; twice as long each time it fails again soon after, up to 5 minutes."`
	PanicPercent      int           `name:"panic-percent" default:"30" help:"With less than this share of a target's instances left, ejected ones are called too; 0: only when none is left."`
	Token             string        `help:"The mesh's token, of 16 bytes at least: nodes show it to one another, and ask everyone for it or for the token of an app. Other users of the machine see flags: prefer the variable, or the file."`
	TokenFile         string        `name:"token-file" help:"File with that token; a second line is taken too, while it is being replaced. It is read again when it changes."`
	TLSCertFile       string        `name:"tls-cert-file" help:"This node's certificate in PEM; its first DNS name is the app-id. With it nodes call one another over TLS and know each other by their certificates. The three files are read again when they change."`
	TLSKeyFile        string        `name:"tls-key-file" help:"The key of that certificate."`
	TLSCAFile         string        `name:"tls-ca-file" help:"The certificates of the authority that signs those of all nodes."`
	LocalMaxInFlight  int           `name:"local-max-in-flight" default:"1000" help:"Calls to this node's own services at once, over which other instances are called if there are any."`

	Access map[string][]string `kong:"-"` // only in the YAML file: by a service or an app-id, the app-ids that may call it

	Resilience Resilience `kong:"-"`
}

// Telemetry says where traces go. Metrics are fetched from /metrics.
type Telemetry struct {
	OTLPEndpoint string  `name:"otlp-endpoint" help:"Collector that traces are sent to with OTLP over HTTP, as http://host:4318; without a path, to its /v1/traces. Default: none are made."`
	SampleRatio  float64 `name:"sample-ratio" default:"1" help:"Share of the traces that begin here and are recorded, from 0 to 1. Others are recorded as their callers decided."`
}
