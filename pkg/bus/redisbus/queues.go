package redisbus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// countedMost is how many entries of a stream are counted one by one.
const countedMost = 1000

// Queues lists the queues of the bus's programs by name. Messages are those not yet acknowledged, delivered or not; of a
// queue without a group they are in its reader's process, and not counted.
func (d *Driver) Queues(ctx context.Context) ([]bus.QueueInfo, error) {
	if d.closing.Err() != nil {
		return nil, bus.ErrClosed
	}
	list, err := d.queues(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: list queues: %w", bus.ErrUnavailable, err)
	}
	return list, nil
}

func (d *Driver) queues(ctx context.Context) ([]bus.QueueInfo, error) {
	known, err := d.registry.known(ctx)
	if err != nil {
		return nil, err
	}
	readers, err := d.readers(ctx, known)
	if err != nil {
		return nil, err
	}
	stored, err := d.client.XLen(ctx, d.store()).Result()
	if err != nil {
		return nil, err
	}
	list := []bus.QueueInfo{{Name: d.store(), Topic: bus.DeadLetterKey + "#", Exchange: d.cfg.DeadLetterExchange, Messages: stored}}
	for name, q := range known {
		if !q.Durable && readers[name] == 0 {
			continue // on its way out
		}
		info := bus.QueueInfo{Name: name, Consumers: readers[name]}
		if len(q.Bindings) > 0 {
			info.Topic, info.Exchange = q.Bindings[0].Pattern, q.Bindings[0].Exchange
		}
		if q.Inbox == "" {
			if info.Messages, err = d.waiting(ctx, name, q); err != nil {
				return nil, err
			}
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b bus.QueueInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// readers is how many consumers each queue has that are alive.
func (d *Driver) readers(ctx context.Context, known map[string]record) (map[string]int64, error) {
	now, err := d.client.Time(ctx).Result()
	if err != nil {
		return nil, err
	}
	pipeline := d.client.Pipeline()
	counts := make(map[string]*redis.IntCmd, len(known))
	for name := range known {
		counts[name] = pipeline.ZCount(ctx, readersKey(name), fmt.Sprint(now.UnixMilli()), "+inf")
	}
	if _, err := pipeline.Exec(ctx); err != nil {
		return nil, err
	}
	list := make(map[string]int64, len(counts))
	for name, n := range counts {
		list[name] = n.Val()
	}
	return list, nil
}

// waiting is how many messages of a queue are not acknowledged.
func (d *Driver) waiting(ctx context.Context, name string, q record) (int64, error) {
	streams, _, err := d.streamsOf(ctx, q)
	if err != nil {
		return 0, err
	}
	pipeline := d.client.Pipeline()
	own := pipeline.XLen(ctx, ownKey(name)) // what is acknowledged is deleted there
	infos := make([]*redis.XInfoGroupsCmd, len(streams))
	for i, s := range streams {
		infos[i] = pipeline.XInfoGroups(ctx, s.key)
	}
	_, _ = pipeline.Exec(ctx) // each has its own error
	if own.Err() != nil {
		return 0, own.Err()
	}
	sum := own.Val()
	for i, info := range infos {
		if err := info.Err(); err != nil && !noStream(err) {
			return 0, err
		}
		for _, g := range info.Val() {
			if g.Name != name {
				continue
			}
			lag, err := d.lag(ctx, streams[i].key, g)
			if err != nil {
				return 0, err
			}
			sum += g.Pending + lag
		}
	}
	return sum, nil
}

// lag is how many entries a group was not given yet. Redis cannot always tell (-1), and what it tells is too much after a
// failover: replicas are not told how many a group has read (Redis 7.0). So few are counted; of more it may be too much.
func (d *Driver) lag(ctx context.Context, stream string, g redis.XInfoGroup) (int64, error) {
	if g.Lag == 0 {
		return 0, nil
	}
	counted, err := d.run.count.Run(ctx, d.client, []string{stream}, g.LastDeliveredID, countedMost).Int64Slice()
	if err != nil || len(counted) != 2 {
		return 0, err
	}
	few, length := counted[0], counted[1]
	if few < countedMost {
		return few, nil
	}
	if g.Lag < 0 {
		return length, nil
	}
	return max(few, min(g.Lag, length)), nil
}

const (
	renewedAtOnce = 16  // consumers with groups, whose signs of life take several round trips
	renewedByOne  = 256 // consumers without, by one round trip
)

// heartbeat says every so often that this driver's consumers with groups live. Those without, of which there are thousands,
// have another one, lest what is at work here be claimed elsewhere while they are renewed.
func (d *Driver) heartbeat() {
	d.everySign(func(all []consumer) {
		var renewing sync.WaitGroup
		places := make(chan struct{}, renewedAtOnce)
		for _, c := range all {
			c, grouped := c.(*groupConsumer)
			if !grouped {
				continue
			}
			places <- struct{}{}
			renewing.Go(func() {
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(d.closing, answerTimeout)
				defer cancel()
				c.renew(ctx)
			})
		}
		renewing.Wait()
	})
}

// heartbeatAlone is heartbeat for consumers without groups.
func (d *Driver) heartbeatAlone() {
	d.everySign(func(all []consumer) {
		var some []*aloneConsumer
		for _, c := range all {
			if c, alone := c.(*aloneConsumer); alone {
				some = append(some, c)
			}
		}
		for chunk := range slices.Chunk(some, renewedByOne) {
			ctx, cancel := context.WithTimeout(d.closing, answerTimeout)
			d.renewAlone(ctx, chunk)
			cancel()
		}
	})
}

// everySign calls renew with the consumers whenever a sign of life is due, until the driver closes.
func (d *Driver) everySign(renew func(all []consumer)) {
	ticker := time.NewTicker(min(d.cfg.ClaimIdle/3, readerTTL/4))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			renew(d.all())
		case <-d.closing.Done():
			return
		}
	}
}
