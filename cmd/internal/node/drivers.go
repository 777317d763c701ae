package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/incident"
	"github.com/bannou-mesh/bannou/services/membership"
	"github.com/bannou-mesh/bannou/services/messaging"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// databaseFile is the embedded storage, in the data folder.
const databaseFile = "state.db"

func newBus(cfg *config.Config, n *Node, log *slog.Logger) (*bus.Bus, error) {
	return bus.New(n.broker, busConfig(cfg, n, log))
}

func busConfig(cfg *config.Config, n *Node, log *slog.Logger) bus.Config {
	m := cfg.Messaging
	attempts := m.RetryMaxAttempts
	if attempts == 0 {
		attempts = -1 // the library's word for none
	}
	return bus.Config{
		AppID: cfg.AppID, Exchange: m.Exchange, DeadLetterExchange: m.DeadLetterExchange, PrefetchCount: m.PrefetchCount,
		RetryMaxAttempts: attempts, RetryDelay: milliseconds(m.RetryDelayMs),
		CloseTimeout: cfg.DrainTimeout, OnFailure: n.incidents.EventFailed, Logger: log, MeterProvider: n.metrics.MeterProvider(),
		TracerProvider: n.tracing.tracer(),
	}
}

func newReporter(cfg *config.Config, instanceID string, metrics *host.Metrics, log *slog.Logger) (*incident.Reporter, error) {
	return incident.New(incident.Config{
		AppID: cfg.AppID, InstanceID: instanceID, Window: cfg.Messaging.ErrorWindow, Paths: pathsOfMesh(),
		Logger: log, MeterProvider: metrics.MeterProvider(),
	})
}

// pathsOfMesh are the first words of paths that the mesh service answers beside its own.
func pathsOfMesh() map[string]string {
	return map[string]string{"orchestrator": "mesh", "v1.0": "mesh"}
}

func newBroker(cfg *config.Config, metrics *host.Metrics, log *slog.Logger) (bus.Driver, error) {
	m := cfg.Messaging
	if m.Backend == "memory" {
		return memorybus.New(memorybus.Config{
			Exchange: m.Exchange, DeadLetterExchange: m.DeadLetterExchange, Logger: log, MeterProvider: metrics.MeterProvider(),
		}), nil
	}
	if m.Backend == "redis" {
		return newRedisBroker(m, metrics, log)
	}
	driver, err := rabbitbus.New(withDaprsExchanges(rabbitbus.Config{
		URLs: m.RabbitMQURLs, Exchange: m.Exchange, DeadLetterExchange: m.DeadLetterExchange,
		RetryDelay: milliseconds(m.ConnectionRetryDelayMs), ManagementURL: m.RabbitMQManagementURL,
		QueueType: rabbitbus.QueueType(m.RabbitMQQueueType), ConnectionName: cfg.AppID, Logger: log, MeterProvider: metrics.MeterProvider(),
	}, m.DaprTopics))
	if err != nil {
		return nil, err // and not an interface that holds a nil pointer
	}
	return driver, nil
}

func newRedisBroker(m config.Messaging, metrics *host.Metrics, log *slog.Logger) (bus.Driver, error) {
	redis.SetLogger(redisLog{log})
	urls := []string{m.RedisURL}
	if len(m.RedisSentinelURLs) > 0 {
		urls = m.RedisSentinelURLs
	}
	driver, err := redisbus.New(redisbus.Config{
		URLs: urls, MasterName: m.RedisMasterName, WaitReplicas: m.RedisWaitReplicas,
		Exchange: m.Exchange, DeadLetterExchange: m.DeadLetterExchange,
		Logger: log, MeterProvider: metrics.MeterProvider(),
	})
	if err != nil {
		return nil, err
	}
	return driver, nil
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// newFactory opens the stores that the chosen services need. Programs' stores only exist where the state service runs. It returns the driver of
// the log of events too, which the factory closes; nil where there is none, or the log is in memory.
func newFactory(cfg *config.Config, own *Own, metrics *host.Metrics, ledger *mirror.Ledger, announcements *statesvc.Announcements, log *slog.Logger) (*state.Factory, state.Driver, error) {
	stores := append(internalStores(cfg), own.stores(cfg)...)
	if slices.Contains(cfg.Services, "state") {
		stores = append(stores, slices.DeleteFunc(programStores(cfg), own.has)...)
	}
	if err := checkTargets(cfg, stores); err != nil {
		return nil, nil, err
	}
	used := slices.Clone(stores)
	if slices.Contains(cfg.Services, "state") {
		used = slices.AppendSeq(used, maps.Values(targets(cfg)))
	}
	if keepsLog(cfg) && cfg.Events.Backend != "memory" {
		used = append(used, state.StoreConfig{Name: "events", Backend: cfg.Events.Backend})
	}
	used = append(used, counterparts(cfg, stores)...)
	drivers, err := newStateDrivers(cfg, used, log)
	if err != nil {
		return nil, nil, err
	}
	ofEvents := eventsDriver(cfg, drivers)
	plain := slices.Clone(drivers)
	if drivers, err = withMigrations(cfg, stores, drivers, metrics.MeterProvider(), log); err != nil {
		return nil, nil, err
	}
	if drivers, err = withMirrors(cfg, stores, drivers, plain, ledger, metrics.MeterProvider(), log); err != nil {
		return nil, nil, err
	}
	options := announcements.Options(state.Options{Logger: log, MeterProvider: metrics.MeterProvider()})
	factory, err := state.NewFactory(stores, drivers, options)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll(drivers))
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if err := announcements.Open(ctx, factory); err != nil {
		return nil, nil, errors.Join(err, factory.Close())
	}
	return factory, ofEvents, nil
}

// newAnnouncements makes what tells of changes of stores. A broker that is this process's memory is never away, and those
// who hear of it end with it: it needs no outbox.
func newAnnouncements(cfg *config.Config, n *Node, log *slog.Logger) *statesvc.Announcements {
	a := statesvc.AnnouncementsConfig{Bus: n.bus, Source: cfg.AppID, MeterProvider: n.metrics.MeterProvider(), Logger: log}
	if m := cfg.Messaging; m.Outbox && m.Backend != "memory" {
		// Apart from the messaging service's, by a name that no app-id can be.
		a.Outbox = state.OutboxConfig{Name: cfg.AppID + " state", MaxEntries: int64(m.OutboxMaxEvents), MaxBytes: int64(m.OutboxMaxBytes)}
	}
	return statesvc.NewAnnouncements(a)
}

// internalStores are those that the node keeps for itself.
func internalStores(cfg *config.Config) []state.StoreConfig {
	lasting := cfg.EngineFor("mysql")
	configuration := cfg.EngineFor("redis")
	if configuration == "memory" {
		configuration = lasting
	}
	stores := membership.Stores(cfg.EngineFor("redis"), configuration)
	if slices.Contains(cfg.Services, "messaging") {
		stores = append(stores, state.StoreConfig{Name: messaging.SubscriptionStore, Backend: lasting})
	}
	stores = append(stores, gameStores(cfg, configuration)...)
	return stores
}

func programStores(cfg *config.Config) []state.StoreConfig {
	all := cfg.AllStores()
	var stores []state.StoreConfig
	for _, name := range slices.Sorted(maps.Keys(all)) {
		stores = append(stores, placed(state.StoreConfig{Name: name, Backend: all[name].Backend}, all[name]))
	}
	return stores
}

// placed is a store as its settings say, on the engine that it has. One that is on Dapr is in a place of the sidecar's: what the settings say of
// prefix and table is its native place, and of no other engine.
func placed(store state.StoreConfig, s config.Store) state.StoreConfig {
	store.DefaultTTL = time.Duration(s.DefaultTTL) * time.Second
	store.Indexes, store.PublishChanges = s.Indexes, s.PublishChanges
	if store.Backend != "dapr" {
		store.KeyPrefix, store.TableName = s.KeyPrefix, s.TableName
	}
	return store
}

// newStateDrivers makes one driver for each backend that a store names.
func newStateDrivers(cfg *config.Config, stores []state.StoreConfig, log *slog.Logger) ([]state.Driver, error) {
	redis.SetLogger(redisLog{log}) // the client has one log for the process, standard error by default
	var drivers []state.Driver
	made := map[string]bool{}
	for _, s := range stores {
		if made[s.Backend] {
			continue
		}
		made[s.Backend] = true
		driver, err := newStateDriver(cfg, s.Backend, log)
		if err != nil {
			return nil, errors.Join(err, closeAll(drivers))
		}
		drivers = append(drivers, driver)
	}
	return drivers, nil
}

func newStateDriver(cfg *config.Config, backend string, log *slog.Logger) (state.Driver, error) {
	switch backend {
	case "memory":
		return memorystate.New(), nil
	case "sqlite":
		return sqlitestate.New(sqlitestate.Config{Path: filepath.Join(cfg.DataDir, databaseFile), Logger: log})
	case "dapr":
		return newDaprState(cfg.Dapr.Sidecar)
	case "redis":
		return redisstate.New(redisConfig(cfg.State))
	case "mysql":
		return mysqlstate.New(mysqlstate.Config{
			DSN: cfg.State.MySQLDSN, ReplicaDSN: cfg.State.MySQLReplicaDSN, MaxConns: cfg.State.MySQLMaxConns, Logger: log,
		})
	default:
		return nil, fmt.Errorf("no driver is called %q", backend)
	}
}

// redisConfig is the Redis of the stores, in the way in which it is named.
func redisConfig(s config.State) redisstate.Config {
	switch {
	case len(s.RedisClusterURLs) > 0:
		return redisstate.Config{URLs: s.RedisClusterURLs, Cluster: true}
	case len(s.RedisSentinelURLs) > 0:
		return redisstate.Config{URLs: s.RedisSentinelURLs, MasterName: s.RedisMasterName}
	default:
		return redisstate.Config{URLs: []string{s.RedisURL}}
	}
}

// redisLog has what the Redis client says of its connections where the rest is logged. What matters of it comes as errors
// of the calls that failed.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, values ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, values...), "from", "redis client")
}

func closeAll(drivers []state.Driver) error {
	var errs []error
	for _, d := range drivers {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
