package rabbitbus

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	// droppedMaxLength and droppedTTL bound what waits to be counted. Beyond them, with no node there for an hour, drops
	// are not counted.
	droppedMaxLength = 10_000
	droppedTTL       = time.Hour
	// dropLogEvery bounds the lines of the log: a flood of drops must not become a flood of lines.
	dropLogEvery = time.Minute
)

// countDropped counts and logs what the dead-letter store's limits remove, until the driver closes. The nodes share the
// queue, so each drop is counted once.
func (d *Driver) countDropped() error {
	counter, err := d.cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/pkg/bus/rabbitbus").Int64Counter(
		"bannou.rabbitbus.dropped", metric.WithUnit("{message}"),
		metric.WithDescription("dead letters that the store's limits removed, by reason"))
	if err != nil {
		return fmt.Errorf("cannot make the metric of dropped dead letters: %w", err)
	}
	c, err := d.register(bus.Queue{Name: d.topology.droppedName(), Durable: true, AutoAck: true, Prefetch: 100}, nil)
	if err != nil {
		return err
	}
	d.wg.Go(func() {
		var logged time.Time
		since := 0
		for x := range c.Deliveries() {
			m := x.Message()
			why := dropReason(m)
			counter.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", why)))
			if since++; time.Since(logged) < dropLogEvery {
				continue
			}
			d.cfg.Logger.Warn("the dead-letter store dropped letters by its limits", "count", since, "reason", why,
				"topic", m.Headers[bus.HeaderOriginalTopic], "messageId", m.ID)
			logged, since = time.Now(), 0
		}
	})
	return nil
}

// dropReason is why the store dropped a letter, in the broker's word: maxlen, expired. It is the newest of its deaths.
func dropReason(m *bus.Message) string {
	var deaths []struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal([]byte(m.Headers["x-death"]), &deaths); err != nil || len(deaths) == 0 {
		return "unknown"
	}
	return cmp.Or(deaths[0].Reason, "unknown")
}
