package redisbus

import (
	"context"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// discardTimeout bounds the wait for a dead letter to be taken.
const discardTimeout = 10 * time.Second

// lapsed reports whether a message has waited longer than it may. One that was delivered does not expire any more: its
// attempts are counted instead.
func lapsed(m *bus.Message, attempt int, id string) bool {
	return m.Expiration > 0 && attempt <= 1 && time.Since(time.UnixMilli(int64(parsePosition(id).ms))) > m.Expiration
}

// expire dead-letters a message that has waited too long, unless it was when nobody read the queue.
func (d *Driver) expire(queue string, m *bus.Message, f fetched) error {
	ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
	defer cancel()
	already, err := d.client.SRem(ctx, expiredKey(queue), f.from.key+" "+f.entry.ID).Result()
	if err != nil || already == 1 {
		return err
	}
	return d.discard(ctx, queue, m, bus.DiscardExpired, nil)
}

func (d *Driver) discard(ctx context.Context, queue string, m *bus.Message, reason string, cause error) error {
	return d.deadLetter(ctx, bus.DeadLetter(m, bus.Discard{
		Exchange: d.cfg.Exchange, DeadLetterExchange: d.cfg.DeadLetterExchange, Queue: queue, Reason: reason, At: time.Now(), Err: cause,
	}))
}

// deadLetter publishes also while the driver closes: the consumer's last fetch may be one to discard.
func (d *Driver) deadLetter(ctx context.Context, m *bus.Message) error {
	if d.closing.Err() != nil {
		return bus.ErrClosed // it stays pending, and is found by the next
	}
	return d.Publish(ctx, m)
}

// quarantine dead-letters an entry that is no message, with its fields as headers, so that it neither blocks the stream
// nor is lost.
func (d *Driver) quarantine(queue string, f fetched, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
	defer cancel()
	m := &bus.Message{RoutingKey: f.from.topic, ID: f.entry.ID, Headers: make(map[string]string)}
	if m.RoutingKey == "" {
		m.RoutingKey = queue
	}
	for name, value := range f.entry.Values {
		text, _ := value.(string)
		if name == "payload" {
			m.Body = []byte(text)
			continue
		}
		m.Headers["x-entry-"+strings.ToValidUTF8(name, "?")] = text
	}
	d.log.Warn("an entry of a stream is no message; it goes to the dead letters", "queue", queue, "stream", f.from.key, "id", f.entry.ID, "error", cause)
	return d.discard(ctx, queue, m, bus.DiscardUndecodable, cause)
}
