package rabbitbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Redeliver puts a message into one queue, through the default exchange. An expiration is kept as an account only: what
// was given up once does not expire a second time.
func (d *Driver) Redeliver(ctx context.Context, queue string, m *bus.Message) error {
	switch {
	case queue == "" || len(queue) > maxShortString:
		return fmt.Errorf("%w: queue name %q: it must have 1 to %d bytes", bus.ErrInvalid, queue, maxShortString)
	case queue == d.topology.storeName():
		return fmt.Errorf("%w: %q keeps dead letters; name the queue of a subscription", bus.ErrInvalid, queue)
	}
	if err := checkMessage(m, d.cfg.MaxMessageBytes, true); err != nil {
		return err
	}
	if !d.enter() {
		return bus.ErrClosed
	}
	defer d.leave()
	first := *m
	first.Exchange = d.topology.exchange(m.Exchange)
	p := toPublishing(&first)
	p.Expiration = ""
	describeReturn(p.Headers, 1, &first)
	err := d.retries.publish(ctx, &outgoing{key: queue, mandatory: true, publishing: p})
	if errors.Is(err, bus.ErrUnroutable) {
		return fmt.Errorf("there is no queue %q: %w", queue, err)
	}
	return err
}
