package redisbus

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// weigh tells of a queue that has more than its limits allow. What waits in it is what its group was not given yet; its bytes are the
// group's share of what the stream takes in Redis's memory.
func (d *Driver) weigh(ctx context.Context, name string, q record, streams []source) error {
	pipeline := d.client.Pipeline()
	groups, lengths, sizes := make([]*redis.XInfoGroupsCmd, len(streams)), make([]*redis.IntCmd, len(streams)), make([]*redis.IntCmd, len(streams))
	for i, s := range streams {
		groups[i], lengths[i], sizes[i] = pipeline.XInfoGroups(ctx, s.key), pipeline.XLen(ctx, s.key), pipeline.MemoryUsage(ctx, s.key)
	}
	if _, err := pipeline.Exec(ctx); err != nil && passing(err) {
		return err
	}
	var messages, bytes int64
	for i := range streams {
		length := lengths[i].Val()
		for _, g := range groups[i].Val() {
			if g.Name != name || length == 0 {
				continue
			}
			waits := g.Lag
			if waits < 0 { // Redis cannot tell, since entries were deleted
				waits = length - g.Pending
			}
			waits = min(max(0, waits), length)
			messages, bytes = messages+waits, bytes+sizes[i].Val()*waits/length
		}
	}
	if (q.MaxCount == 0 || messages <= int64(q.MaxCount)) && (q.MaxBytes == 0 || bytes <= q.MaxBytes) {
		return nil
	}
	err := d.Redeliver(ctx, q.Overflow, &bus.Message{RoutingKey: name, Headers: map[string]string{
		bus.HeaderOverflowQueue: name, bus.HeaderOverflowReason: bus.OverflowReason,
	}})
	if errors.Is(err, bus.ErrUnroutable) { // nobody wants to hear of it
		return nil
	}
	return err
}
