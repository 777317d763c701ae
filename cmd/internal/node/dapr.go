package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/services/facade"
)

// ownPubSub is the name by which an app that speaks Dapr's API knows the node's own bus.
const ownPubSub = "bannou-pubsub"

// dapr is a facade with what its components are made of. Close it after the host has stopped.
type dapr struct {
	service   *facade.Service
	calls     net.Listener // where the calls of others come in; nil: they go to the app
	listeners []net.Listener
	buses     []*bus.Bus
	brokers   []bus.Driver
	factories []*state.Factory

	cfg       *config.Config
	log       *slog.Logger
	stores    map[string]facade.StateStore
	pubsubs   map[string]facade.PubSub
	secrets   map[string]facade.SecretStore
	busConfig bus.Config
}

// newDapr makes the facade that the settings ask for.
func newDapr(n *Node, cfg *config.Config, client *mesh.Client, version string, log *slog.Logger) (d *dapr, err error) {
	d = &dapr{cfg: cfg, log: log, stores: map[string]facade.StateStore{}, pubsubs: map[string]facade.PubSub{}, secrets: map[string]facade.SecretStore{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(context.Background()))
		}
	}()
	d.busConfig = bus.Config{
		AppID: cfg.Dapr.AppID, Exchange: cfg.Messaging.Exchange, DeadLetterExchange: cfg.Messaging.DeadLetterExchange,
		PrefetchCount: cfg.Messaging.PrefetchCount, RetryDelay: milliseconds(cfg.Messaging.RetryDelayMs), CloseTimeout: cfg.DrainTimeout,
		OnFailure: n.incidents.EventFailed, Logger: log, MeterProvider: n.metrics.MeterProvider(), TracerProvider: n.tracing.tracer(),
	}
	allowed := config.Limited(cfg.Dapr.Stores)
	for _, name := range allowed {
		if !slices.ContainsFunc(programStores(cfg), func(s state.StoreConfig) bool { return s.Name == name && n.factory.Has(name) }) {
			return d, fmt.Errorf("--dapr-stores: this node has no store %q", name)
		}
	}
	for _, s := range programStores(cfg) {
		if n.factory.Has(s.Name) && (allowed == nil || slices.Contains(allowed, s.Name)) {
			d.stores[s.Name] = facade.StateStore{Factory: n.factory, Name: s.Name, Kind: "state.bannou"}
		}
	}
	d.pubsubs[ownPubSub] = facade.PubSub{
		Bus: n.bus, Kind: "pubsub.bannou", Group: cfg.Dapr.AppID,
		MayPublish: config.Limited(cfg.Dapr.PublishTopics), MaySubscribe: config.Limited(cfg.Dapr.SubscribeTopics),
	}
	var resources facade.Resources
	if cfg.Dapr.ResourcesPath != "" {
		if resources, err = facade.Load(cfg.Dapr.ResourcesPath, cfg.Dapr.AppID); err != nil {
			return d, err
		}
	}
	if len(resources.Subscriptions) > 0 && cfg.Dapr.AppAddress == "" {
		return d, errors.New("--dapr-resources-path has subscriptions, and nobody to take their events: say with --dapr-app-address where the app listens, or take them out")
	}
	for _, c := range resources.Components {
		if err := d.add(c); err != nil {
			return d, fmt.Errorf("component %q (%s): %w", c.Name, c.Type, err)
		}
	}
	made := facade.Config{
		AppID: cfg.Dapr.AppID, AppAddress: cfg.Dapr.AppAddress, AppProtocol: cfg.Dapr.AppProtocol, Client: client,
		Stores: d.stores, PubSubs: d.pubsubs, Secrets: d.secrets, Subscriptions: resources.Subscriptions,
		Token: cfg.Dapr.APIToken, AppToken: cfg.Dapr.AppAPIToken, Retries: cfg.Dapr.RetryMaxAttempts, RetryDelay: milliseconds(cfg.Messaging.RetryDelayMs),
		Version: version, Shutdown: n.end, Logger: log,
	}
	for _, l := range []struct {
		flag, at string
		into     *net.Listener
	}{{"--dapr-listen", cfg.Dapr.Listen, &made.Listener}, {"--dapr-grpc-listen", cfg.Dapr.GRPCListen, &made.GRPCListener}, {"--dapr-app-calls-listen", cfg.Dapr.AppCallsListen, &made.Calls}} {
		if l.at == "" {
			continue
		}
		if *l.into, err = new(net.ListenConfig).Listen(context.Background(), "tcp", l.at); err != nil {
			return d, fmt.Errorf("%s: %w", l.flag, err)
		}
		d.listeners = append(d.listeners, *l.into)
	}
	d.calls = made.Calls
	d.service, err = facade.New(made)
	return d, err
}

// add makes what a component names. Errors never repeat addresses: they may hold passwords.
func (d *dapr) add(c facade.Component) error {
	switch kind, _, _ := strings.Cut(c.Type, "."); kind {
	case "state", "lock":
		return d.addStore(c)
	case "pubsub":
		return d.addPubSub(c)
	}
	if c.Type == "secretstores.local.env" {
		d.secrets[c.Name] = facade.Environment{Prefix: c.Metadata["prefix"]}
		return nil
	}
	multi, _ := strconv.ParseBool(c.Metadata["multivalued"])
	file := facade.SecretFile{Path: c.Metadata["secretsfile"], Separator: c.Metadata["nestedseparator"], MultiValued: multi}
	if _, err := os.Stat(file.Path); err != nil {
		return fmt.Errorf("secretsFile: %w", err)
	}
	d.secrets[c.Name] = file
	return nil
}

func (d *dapr) addStore(c facade.Component) error {
	prefix, err := keyPrefix(c, d.cfg.Dapr.AppID)
	if err != nil {
		return err
	}
	store := facade.StateStore{Name: "dapr", Kind: c.Type, AnyBytes: true}
	var driver state.Driver
	made := state.StoreConfig{Name: "dapr"}
	switch c.Type {
	case "state.in-memory":
		driver = memorystate.New()
	case "state.redis", "lock.redis":
		if prefix == "" {
			return errors.New("keyPrefix none would make every key of the Redis one of this store: name a prefix that the apps share")
		}
		address, err := redisURL(c.Metadata)
		if err != nil {
			return err
		}
		made.KeyPrefix = prefix + "||"
		if driver, err = redisstate.New(redisstate.Config{URLs: []string{address}, AnyKeys: true}); err != nil {
			return err
		}
	default:
		if driver, err = d.daprMySQL(c, prefix, &made); err != nil {
			return err
		}
	}
	made.Backend = driver.Backend()
	store.Factory, err = state.NewFactory([]state.StoreConfig{made}, []state.Driver{driver}, state.Options{Logger: d.log, MeterProvider: d.busConfig.MeterProvider})
	if err != nil {
		return errors.Join(err, driver.Close())
	}
	d.factories = append(d.factories, store.Factory)
	d.stores[c.Name] = store
	return nil
}

// keyPrefix is what Dapr puts before the keys of a store.
func keyPrefix(c facade.Component, appID string) (string, error) {
	switch prefix := c.Metadata["keyprefix"]; prefix {
	case "", "appid":
		return appID, nil
	case "name":
		return c.Name, nil
	case "none":
		return "", nil
	case "namespace":
		if namespace := os.Getenv("NAMESPACE"); namespace != "" {
			return namespace + "." + appID, nil
		}
		return appID, nil
	default:
		if strings.Contains(prefix, "||") {
			return "", errors.New("keyPrefix cannot contain ||")
		}
		return prefix, nil
	}
}

func (d *dapr) addPubSub(c facade.Component) error {
	broker, err := d.broker(c)
	if err != nil {
		return err
	}
	if broker, err = sharing(d.cfg, c.Name, broker, d.log); err != nil {
		return errors.Join(err, broker.Close(context.Background()))
	}
	d.brokers = append(d.brokers, broker)
	config := d.busConfig
	if config.PrefetchCount, err = prefetch(c, config.PrefetchCount); err != nil {
		return err
	}
	made, err := bus.New(broker, config)
	if err != nil {
		return err
	}
	d.buses = append(d.buses, made)
	p := facade.PubSub{Bus: made, Kind: c.Type, Group: c.Metadata["consumerid"]}
	p.MayPublish, p.MaySubscribe, p.Protected = facade.TopicScopes(c.Metadata, d.cfg.Dapr.AppID)
	d.pubsubs[c.Name] = p
	return nil
}

// prefetch is how many events of a subscription are in work at a time: as many as the component says, or as the node does. 0, which is Dapr's word for any number,
// is the node's too.
func prefetch(c facade.Component, own int) (int, error) {
	said := c.Metadata["prefetchcount"]
	if said == "" {
		return own, nil
	}
	n, err := strconv.ParseUint(said, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("prefetchCount is '%s', and has to be a number from 0 to 65535", said)
	}
	return cmp.Or(int(n), own), nil
}

func (d *dapr) broker(c facade.Component) (bus.Driver, error) {
	exchange, letters := d.busConfig.Exchange, d.busConfig.DeadLetterExchange
	switch c.Type {
	case "pubsub.in-memory":
		return memorybus.New(memorybus.Config{Exchange: exchange, DeadLetterExchange: letters, Logger: d.log, MeterProvider: d.busConfig.MeterProvider}), nil
	case "pubsub.redis":
		address, err := redisURL(c.Metadata)
		if err != nil {
			return nil, err
		}
		driver, err := redisbus.New(redisbus.Config{URLs: []string{address}, Exchange: exchange, DeadLetterExchange: letters, Logger: d.log, MeterProvider: d.busConfig.MeterProvider})
		if err != nil {
			return nil, err
		}
		return driver, nil
	default:
		address, err := rabbitURL(c.Metadata)
		if err != nil {
			return nil, err
		}
		driver, err := rabbitbus.New(withDaprsExchanges(rabbitbus.Config{
			URLs: []string{address}, Exchange: exchange, DeadLetterExchange: letters, ConnectionName: d.cfg.Dapr.AppID,
			RetryDelay: milliseconds(d.cfg.Messaging.ConnectionRetryDelayMs), QueueType: rabbitbus.QueueType(d.cfg.Messaging.RabbitMQQueueType),
			Logger: d.log, MeterProvider: d.busConfig.MeterProvider,
		}, d.cfg.Messaging.DaprTopics))
		if err != nil {
			return nil, err
		}
		return driver, nil
	}
}

// redisURL is the address that the metadata of a Redis component gives.
func redisURL(m map[string]string) (string, error) {
	if m["redistype"] == "cluster" || m["failover"] == "true" {
		return "", errors.New("it is a cluster, or has Sentinels: such a store is one of the node's settings, state.redisClusterUrls or state.redisSentinelUrls")
	}
	if m["redishost"] == "" {
		return "", errors.New("redisHost is missing: host:port")
	}
	u := url.URL{Scheme: "redis", Host: m["redishost"], Path: "/" + m["redisdb"]}
	if tls, _ := strconv.ParseBool(m["enabletls"]); tls {
		u.Scheme = "rediss"
	}
	if m["redisusername"] != "" || m["redispassword"] != "" {
		u.User = url.UserPassword(m["redisusername"], m["redispassword"])
	}
	return u.String(), nil
}

// rabbitURL is the address that the metadata of a RabbitMQ component gives, in one of its three ways.
func rabbitURL(m map[string]string) (string, error) {
	for _, name := range []string{"connectionstring", "host"} {
		if m[name] != "" {
			return m[name], nil
		}
	}
	if m["hostname"] == "" {
		return "", errors.New("connectionString is missing: amqp://user:password@host:5672/")
	}
	u := url.URL{Scheme: m["protocol"], Host: m["hostname"]}
	if u.Scheme == "" {
		u.Scheme = "amqp"
	}
	if m["username"] != "" {
		u.User = url.UserPassword(m["username"], m["password"])
	}
	return u.String(), nil
}

// close releases what was opened. The facade itself has been stopped by the host, or never started.
func (d *dapr) close(ctx context.Context) error {
	var errs []error
	for _, l := range d.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, b := range d.buses {
		errs = append(errs, b.Close(ctx))
	}
	for _, broker := range d.brokers {
		errs = append(errs, broker.Close(ctx))
	}
	for _, f := range d.factories {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
