package redisbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	upkeepKey    = "bannou:{registry}:upkeep"
	consumerIdle = 10 * time.Minute // a consumer's name with nothing pending goes after so long without a sign
	expiringAge  = 24 * time.Hour   // how long a stream is looked through after the last of its messages has expired
	sweepEntries = 1000
)

// upkeep keeps streams short and the registry true. One node does it at a time; all of it may be done twice.
func (d *Driver) upkeep() {
	ticker := time.NewTicker(d.cfg.Upkeep)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-d.closing.Done():
			return
		}
		mine, err := d.client.SetNX(d.closing, upkeepKey, d.id, d.cfg.Upkeep*9/10).Result()
		if err == nil && mine {
			err = d.keepUp(d.closing)
		}
		if err != nil && d.closing.Err() == nil {
			d.log.Debug("the upkeep of streams failed; it is done again soon", "error", err)
		}
	}
}

func (d *Driver) keepUp(ctx context.Context) error {
	queues, err := d.registry.known(ctx)
	if err != nil {
		return err
	}
	readers, err := d.readers(ctx, queues)
	if err != nil {
		return err
	}
	return errors.Join(d.retain(ctx, queues), d.limitStore(ctx), d.dismiss(ctx, queues, readers), d.sweep(ctx, queues, readers))
}

// retain trims what every queue has handled, and records how far each has come.
func (d *Driver) retain(ctx context.Context, queues map[string]record) error {
	topics, err := d.client.ZRangeWithScores(ctx, topicsKey, 0, -1).Result()
	if err != nil {
		return err
	}
	exchanges, err := d.client.SMembers(ctx, exchangesKey).Result()
	if err != nil {
		return err
	}
	old := float64(time.Now().Add(-topicAge).UnixMilli())
	for _, topic := range topics {
		name, _ := topic.Member.(string)
		left, err := d.retainTopic(ctx, name, queues)
		if err == nil && !left && topic.Score < old {
			err = d.run.retire.Run(ctx, d.client, []string{topicsKey}, name, topicAge.Milliseconds()).Err()
		}
		if err != nil {
			return err
		}
	}
	for _, exchange := range exchanges {
		_, err := d.trim(ctx, exchangeKey(exchange), exchange, "", queues)
		if err != nil && passing(err) {
			return err
		}
		if err != nil {
			d.complain(exchangeKey(exchange), err)
		}
	}
	return nil
}

// retainTopic trims a topic's stream. It fails only where Redis does not answer: one bad stream keeps no other from being
// trimmed.
func (d *Driver) retainTopic(ctx context.Context, name string, queues map[string]record) (left bool, err error) {
	if !d.isTopic(name) { // an earlier version took it for one
		return true, d.strike(ctx, name, d.noTopic(name))
	}
	left, err = d.trim(ctx, name, d.cfg.Exchange, name, queues)
	switch {
	case err == nil || passing(err):
		return left, err
	case noStream(err):
		return true, d.strike(ctx, name, err)
	default:
		d.complain(name, err)
		return true, nil
	}
}

// strike takes a name off the topics that is none: what lies under that key is somebody else's.
func (d *Driver) strike(ctx context.Context, name string, why error) error {
	d.complain(name, why)
	return d.client.ZRem(ctx, topicsKey, name).Err()
}

// complain says, once for each stream, why it is not trimmed.
func (d *Driver) complain(stream string, why error) {
	if _, found := d.warned[stream]; !found {
		d.warned[stream] = struct{}{}
		d.log.Warn("a stream is not trimmed", "stream", stream, "error", why)
	}
}

// trim shortens one stream. left: something remains of it.
func (d *Driver) trim(ctx context.Context, stream, exchange, topic string, queues map[string]record) (left bool, err error) {
	args := []any{d.cfg.Grace.Milliseconds(), topicAge.Milliseconds()}
	for name, q := range queues {
		if q.Inbox == "" && reads(q, exchange, topic) {
			args = append(args, name)
		}
	}
	reached, err := d.run.retain.Run(ctx, d.client, []string{stream}, args...).StringSlice()
	if err != nil {
		return false, err
	}
	pipeline := d.client.Pipeline()
	exists := pipeline.Exists(ctx, stream)
	for i := 0; i+1 < len(reached); i += 2 {
		if _, found := queues[reached[i]]; found {
			pipeline.HSet(ctx, positionsKey(reached[i]), stream, reached[i+1])
		}
	}
	_, err = pipeline.Exec(ctx)
	return exists.Val() > 0, err
}

// reads reports whether a queue has a group on a stream: a topic's, or an exchange's if there is no topic.
func reads(q record, exchange, topic string) bool {
	for _, b := range q.Bindings {
		if b.Exchange == exchange && (topic == "" || matches(b.Pattern, topic)) {
			return true
		}
	}
	return false
}

// limitStore drops the oldest dead letters beyond the limits.
func (d *Driver) limitStore(ctx context.Context) error {
	over, err := d.client.XTrimMaxLen(ctx, d.store(), d.cfg.MaxDeadLetters).Result()
	if err != nil {
		return err
	}
	d.drops.count(ctx, d.store(), "limit", over)
	oldest := strconv.FormatInt(time.Now().Add(-d.cfg.MaxDeadLetterAge).UnixMilli(), 10)
	aged, err := d.client.XTrimMinID(ctx, d.store(), oldest).Result()
	d.drops.count(ctx, d.store(), "age", aged)
	return err
}

// dismiss removes queues that went with a reader that is gone, and the names of consumers that are.
func (d *Driver) dismiss(ctx context.Context, queues map[string]record, readers map[string]int64) error {
	for name, q := range queues {
		over := !q.Durable && readers[name] == 0
		if q.Expires > 0 {
			var err error
			if over, err = d.unread(ctx, name, q, readers[name] > 0); err != nil {
				return err
			}
		}
		if over {
			went, err := d.registry.leave(ctx, name, false, "")
			if err == nil && went {
				err = d.clear(ctx, name, q)
			}
			if err != nil {
				return err
			}
			continue
		}
		if q.Inbox != "" {
			continue
		}
		streams, _, err := d.streamsOf(ctx, q)
		if err != nil {
			return err
		}
		if q.Overflow != "" && q.MaxCount+int(q.MaxBytes) > 0 {
			if err := d.weigh(ctx, name, q, append(slices.Clone(streams), source{key: ownKey(name)})); err != nil {
				return err
			}
		}
		idle := max(consumerIdle, 2*d.cfg.ClaimIdle).Milliseconds()
		for _, s := range append(streams, source{key: ownKey(name)}) {
			if err := d.run.quit.Run(ctx, d.client, []string{s.key}, name, idle).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// unread reports whether a queue that expires has been without a reader for long enough.
func (d *Driver) unread(ctx context.Context, name string, q record, read bool) (over bool, err error) {
	if read {
		return false, d.client.HDel(ctx, unreadKey, name).Err()
	}
	now := time.Now().UnixMilli()
	if err := d.client.HSetNX(ctx, unreadKey, name, now).Err(); err != nil {
		return false, err
	}
	since, err := d.client.HGet(ctx, unreadKey, name).Int64()
	if err != nil || now-since < q.Expires {
		return false, err
	}
	return true, d.client.HDel(ctx, unreadKey, name).Err()
}

// sweep dead-letters what has expired in queues that nobody reads; readers do it for theirs.
func (d *Driver) sweep(ctx context.Context, queues map[string]record, readers map[string]int64) error {
	expiring, err := d.client.ZRangeWithScores(ctx, expiringKey, 0, -1).Result()
	if err != nil {
		return err
	}
	for _, z := range expiring {
		stream, _ := z.Member.(string)
		if time.Since(time.UnixMilli(int64(z.Score))) > expiringAge {
			if err := d.client.ZRem(ctx, expiringKey, stream).Err(); err != nil {
				return err
			}
		}
		groups, err := d.client.XInfoGroups(ctx, stream).Result()
		if err != nil && !noStream(err) {
			return err
		}
		for _, g := range groups {
			if q, found := queues[g.Name]; found && readers[g.Name] == 0 {
				if err := d.sweepGroup(ctx, g, stream, q); err != nil {
					return fmt.Errorf("look for what expired in queue %q: %w", g.Name, err)
				}
			}
		}
	}
	return nil
}

// sweepGroup looks through what a group was not given yet. What it dead-letters it notes, so that the next reader passes
// over it.
func (d *Driver) sweepGroup(ctx context.Context, g redis.XInfoGroup, stream string, q record) error {
	list, err := d.client.XRangeN(ctx, stream, "("+g.LastDeliveredID, "+", sweepEntries).Result()
	if err != nil {
		return err
	}
	for _, entry := range list {
		m, attempt, err := decode(entry.Values)
		if err != nil || !lapsed(m, attempt, entry.ID) {
			continue
		}
		if m.Exchange == "" {
			m.Exchange = d.cfg.Exchange
		}
		if m.RoutingKey == "" {
			m.RoutingKey = stream
		}
		mark := stream + " " + entry.ID
		marked, err := d.client.SIsMember(ctx, expiredKey(g.Name), mark).Result()
		if err != nil {
			return err
		}
		if marked || !q.wants(m.Exchange, m.RoutingKey) {
			continue
		}
		if err := d.discard(ctx, g.Name, m, bus.DiscardExpired, nil); err != nil {
			return err
		}
		if err := d.client.SAdd(ctx, expiredKey(g.Name), mark).Err(); err != nil {
			return err
		}
	}
	return nil
}
