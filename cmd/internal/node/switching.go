package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/facade"
	"github.com/bannou-mesh/bannou/services/migration"
	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

// newMigration makes the service that `bannou migrate` asks.
func (n *Node) newMigration(cfg *config.Config, instanceID string, log *slog.Logger) (*migration.Service, error) {
	s := switching{n, cfg, log}
	return migration.New(migration.Config{
		AppID: cfg.AppID, InstanceID: instanceID, File: migration.OpenFile(cfg.DecisionFile()),
		Items: s.items, Target: s.target, Compared: s.compared, Check: s.check, Obstacles: s.obstacles, Bus: n.bus, Logger: log,
	})
}

// switching is what a node knows of its ways.
type switching struct {
	n   *Node
	cfg *config.Config
	log *slog.Logger
}

// items are the stores, services and targets of calls of this node.
func (s switching) items(context.Context) []migration.Item {
	var all []migration.Item
	for _, store := range s.stores() {
		item := s.cfg.ItemOf(migration.KindStore, migration.BlockState, store.Name)
		item.Engine = store.Backend
		all = append(all, item)
	}
	for _, name := range s.cfg.Services {
		item := s.cfg.ItemOf(migration.KindService, migration.BlockMessaging, name)
		if item.Engine = s.cfg.Messaging.Backend; item.Running == migration.Dapr {
			item.Engine = migration.Dapr
		}
		all = append(all, item)
	}
	for _, topic := range s.cfg.Topics() {
		all = append(all, s.cfg.TopicOf(topic))
	}
	targets := append(s.cfg.Targets(), s.cfg.Services...)
	slices.Sort(targets)
	for _, name := range slices.Compact(targets) {
		all = append(all, s.target(name))
	}
	return all
}

// stores are those of programs, and those of the program's own service.
func (s switching) stores() []state.StoreConfig {
	stores := s.n.own.stores(s.cfg)
	if slices.Contains(s.cfg.Services, "state") {
		stores = append(stores, programStores(s.cfg)...)
	}
	return stores
}

// target is the item of calls to an app-id or a service.
func (s switching) target(name string) migration.Item {
	return s.cfg.ItemOf(migration.KindService, migration.BlockMesh, name)
}

// compared is what the mirror of a store, or the counting of events, has found.
func (s switching) compared(item migration.Item, window time.Duration) (c migrationapi.MigrationComparison, ok bool) {
	if item.Block == migration.BlockMessaging {
		return s.n.counting.compared(item, window)
	}
	if item.Kind != migration.KindStore {
		return c, false
	}
	if _, ok := s.cfg.State.Mirrors[item.Name]; !ok {
		return c, false
	}
	r, used := s.n.ledger.Report(item.Name, window)
	c = migrationapi.MigrationComparison{
		With: s.cfg.State.Mirrors[item.Name].To, Seconds: float32(window.Seconds()), Since: r.Since, Compared: r.Compared, Different: r.Different,
		Reasons: map[string]int64{}, Busy: r.Busy, Skipped: r.Skipped, Failures: r.Failures, Uncarried: r.Uncarried, Waiting: int64(r.Waiting), Pending: int64(r.Pending),
		LastFailure: r.LastFailure,
	}
	if !used { // nobody has opened it yet
		return c, true
	}
	for reason, count := range r.Reasons {
		c.Reasons[string(reason)] = count
	}
	for _, f := range r.Recent {
		c.Recent = append(c.Recent, migrationapi.MigrationDifference{Key: f.Key, Reason: string(f.Reason), At: f.At})
	}
	return c, true
}

// check says what is wrong with the way that an item would go to.
func (s switching) check(ctx context.Context, item migration.Item, to string) error {
	switch {
	case item.Kind == migration.KindStore:
		stores := s.stores()
		if i := slices.IndexFunc(stores, func(store state.StoreConfig) bool { return store.Name == item.Name }); i >= 0 {
			if err := checkSeen(s.cfg, s.n.own, stores[i], to); err != nil || to != migration.Native {
				return err
			}
			return s.unusable(ctx, nativePlace(s.cfg, s.n.own, stores[i]))
		}
	case item.Kind == migration.KindTopic && to == migration.Native:
		return s.unread(ctx, item.Name)
	case item.Kind == migration.KindTopic:
	case item.Block == migration.BlockMessaging && to == migration.Native:
		if s.cfg.Messaging.Backend == "memory" && s.cfg.UsesDapr() {
			return errors.New("no native broker is named: set --messaging-rabbitmq-urls or --messaging-redis-url")
		}
		if err := s.n.broker.Ready(ctx); err != nil {
			return fmt.Errorf("the native broker is away: %w", err)
		}
	case item.Block == migration.BlockMesh && to == migration.Native:
		appID, _ := s.n.directory.Resolve(item.Name)
		if len(s.n.directory.Endpoints(appID)) == 0 {
			return fmt.Errorf("no healthy instance of %s is in the registry", item.Name)
		}
	}
	return nil
}

// obstacles are what is in the way of more than one item.
func (s switching) obstacles(ctx context.Context) []string {
	var found []string
	if path := s.cfg.Dapr.ResourcesPath; path != "" {
		if _, err := facade.Load(path, s.cfg.Dapr.AppID); err != nil {
			found = append(found, err.Error())
		}
	}
	found = append(found, s.readers(ctx)...)
	if err := s.unnamed(ctx); err != nil {
		found = append(found, err.Error())
	}
	return found
}

// mostLook is how long the broker, or the place of a store, is looked at.
const mostLook = 3 * time.Second

// readers are the subscribers of other programs on exchanges that are not this node's, which the broker tells of: those of Dapr apps
// have one for each topic.
func (s switching) readers(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, mostLook) // a broker that is away leaves time for what else is asked
	defer cancel()
	queues, err := s.n.broker.Queues(ctx)
	if err != nil {
		return []string{"who else reads from the broker is not known: " + err.Error()}
	}
	var found []string
	m := &s.cfg.Messaging
	for _, q := range queues {
		if q.Consumers > 0 && q.Exchange != "" && q.Exchange != m.Exchange && q.Exchange != m.DeadLetterExchange && !strings.HasPrefix(q.Exchange, "amq.") {
			found = append(found, fmt.Sprintf("the queue %s on the exchange %s has %d readers: a topic goes native after its last subscriber", q.Name, q.Exchange, q.Consumers))
		}
	}
	return found
}

// unread says which apps of Dapr still read a topic, on the node's own broker and on those of the facade's components.
func (s switching) unread(ctx context.Context, topic string) error {
	brokers := []bus.Driver{s.n.broker}
	if s.n.dapr != nil {
		brokers = append(brokers, s.n.dapr.brokers...)
	}
	asked := false
	for i, broker := range brokers {
		shared, ok := broker.(*daprtopics.Driver)
		if !ok {
			continue
		}
		own := i == 0
		if m := &s.cfg.Messaging; own && m.Backend == "rabbitmq" && m.RabbitMQManagementURL == "" {
			return errors.New("who reads the topic for Dapr only RabbitMQ's management API tells: set --messaging-rabbitmq-management-url")
		}
		readers, err := shared.Readers(ctx, topic)
		switch {
		case err != nil && own:
			return fmt.Errorf("who reads the topic for Dapr is not known: %w", err)
		case err != nil:
			return fmt.Errorf("%w: %w", errReadersUnknown, err)
		case len(readers) > 0:
			return fmt.Errorf("%d subscribers of Dapr still read it, such as %s", len(readers), readers[0].Name)
		}
		asked = true
	}
	if !asked {
		return errReadersUnknown
	}
	return nil
}

var errReadersUnknown = errors.New("who reads the topic for Dapr on the component's broker is not known: look there, and force the switch when nobody does")

// rowsLookedAt is how many keys of a database are looked at for rows that nothing native can use.
const rowsLookedAt = 100_000

// unusable says why the rows of an app of Dapr in a place are none for a native driver: they are of actors, or encrypted.
func (s switching) unusable(ctx context.Context, place state.StoreConfig) error {
	if !ofDapr(place) {
		return nil
	}
	place.TableName = tableOf(place) // as a factory has it
	ctx, cancel := context.WithTimeout(ctx, mostLook)
	defer cancel()
	driver, err := newStateDriver(s.cfg, place.Backend, s.log) //nolint:contextcheck // drivers outlive the call that makes them
	if err != nil {
		return fmt.Errorf("%s cannot be looked at: %w", where(place), err)
	}
	defer func() { _ = driver.Close() }()
	engine, err := driver.Open(ctx, place)
	if err != nil {
		return fmt.Errorf("%s cannot be looked at: %w", where(place), err)
	}
	if inspector, ok := engine.(state.Inspector); ok {
		return inspector.Inspect(ctx, rowsLookedAt)
	}
	return nil
}

// ofDapr reports whether a place has the rows of an app of Dapr.
func ofDapr(place state.StoreConfig) bool {
	return strings.HasSuffix(place.KeyPrefix, "||") && (place.Backend == "redis" || place.Backend == "mysql")
}

// unnamed looks at the rows that this app has by Dapr on the node's Redis, as long as the settings do not say where a store would be natively.
func (s switching) unnamed(ctx context.Context) error {
	stores := slices.DeleteFunc(s.stores(), func(store state.StoreConfig) bool {
		_, named := s.cfg.State.Stores[store.Name]
		return store.Backend != migration.Dapr || named
	})
	if len(stores) == 0 || s.cfg.EngineFor("redis") != "redis" {
		return nil
	}
	return s.unusable(ctx, state.StoreConfig{Name: stores[0].Name, Backend: "redis", KeyPrefix: s.cfg.AppID + "||"})
}
