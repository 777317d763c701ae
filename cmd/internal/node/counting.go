package node

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/bus/mirror"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/migration"
	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

// counting counts the events of topics on the node's broker and on another one. It is a service of the host.
type counting struct {
	host.Base
	cfg    mirror.WatchConfig
	watch  *mirror.Watch
	with   string
	topics []string
}

// addCounting puts it on the host, where it is asked for.
func (n *Node) addCounting(cfg *config.Config, log *slog.Logger) error {
	m := &cfg.Messaging
	if m.MirrorTo == "" {
		return nil
	}
	other := *cfg
	if m.MirrorTo != "dapr" { // whose topics are on the node's own broker, in a place of their own
		other.Messaging.Backend = m.MirrorTo
	}
	there, err := newBroker(&other, n.metrics, log)
	if err != nil {
		return err
	}
	var place func(topic string) bus.Binding
	var counts func(m *bus.Message) bool
	if sharer, able := there.(daprtopics.Sharer); able && m.MirrorTo == "dapr" {
		place = func(topic string) bus.Binding {
			exchange, key := sharer.DaprPlace(cmp.Or(m.DaprTopics[topic].Name, topic))
			return bus.Binding{Exchange: exchange, Pattern: cmp.Or(key, "#")}
		}
		if m.Backend == "redis" { // where native entries are in the same stream, which no app of Dapr can read
			counts = func(m *bus.Message) bool { return m.Headers[bus.HeaderEnvelope] != "" }
		}
	}
	n.counting = &counting{with: m.MirrorTo, topics: m.MirrorTopics, cfg: mirror.WatchConfig{
		Here: n.broker, There: there, Topics: m.MirrorTopics, Place: place, Counts: counts, Ledger: mirror.NewLedger(mirror.Config{}), Logger: log,
	}}
	return n.host.Add(n.counting)
}

// Name is "mirror".
func (c *counting) Name() string { return "mirror" }

// Start begins to count.
func (c *counting) Start(context.Context) (err error) {
	c.watch, err = mirror.Start(c.cfg) //nolint:contextcheck // it outlives the call, until Stop
	return err
}

// Stop ends the counting.
func (c *counting) Stop(ctx context.Context) error { return c.watch.Close(ctx) }

// close closes the other broker's driver.
func (c *counting) close(ctx context.Context) error { return c.cfg.There.Close(ctx) }

// compared is what was counted of a topic, or, for a service, of all topics.
func (c *counting) compared(item migration.Item, window time.Duration) (sum migrationapi.MigrationComparison, ok bool) {
	if c == nil {
		return sum, false
	}
	topics := c.topics
	if item.Kind == migration.KindTopic {
		if !slices.Contains(topics, item.Name) {
			return sum, false
		}
		topics = []string{item.Name}
	}
	sum = migrationapi.MigrationComparison{With: c.with, Seconds: float32(window.Seconds()), Reasons: map[string]int64{}}
	for _, topic := range topics {
		r, ok := c.cfg.Ledger.Report(topic, window)
		if !ok {
			continue
		}
		sum.Since = r.Since
		sum.Compared += r.Compared()
		sum.Skipped += r.Skipped
		sum.Waiting += r.Waiting
		for reason, count := range r.Reasons() {
			sum.Reasons[reason] += count
			sum.Different += count
		}
		for _, f := range r.Recent {
			sum.Recent = append(sum.Recent, migrationapi.MigrationDifference{Key: f.ID, Reason: f.Reason, At: f.At})
		}
	}
	return sum, true
}
