package redisstate

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// scanBatch is how many keys a server looks at before others have their turn: some 150 µs of its time.
const scanBatch = 500

// scanFreely is for how long keys are counted without rests: a small database is counted at once.
const scanFreely = 10 * time.Millisecond

// Len implements state.Engine. It looks at every key of the database, a few at a time, and in a large one leaves the server to
// others for as long as each look took. A key may count twice while Redis changes the size of its table.
func (e *engine) Len(ctx context.Context) (int64, error) {
	var n atomic.Int64
	count := func(ctx context.Context, node *redis.Client) error {
		counted, err := e.scan(ctx, node)
		n.Add(counted)
		return err
	}
	var err error
	if cluster := e.lines.cluster; cluster != nil {
		err = cluster.ForEachMaster(ctx, count)
	} else {
		counted, failed := e.scan(ctx, e.lines.client)
		n.Add(counted)
		err = failed
	}
	if err = readError(ctx, err); err != nil {
		return 0, e.storeError(err)
	}
	return n.Load(), nil
}

// scan counts the store's keys on one server.
func (e *engine) scan(ctx context.Context, server redis.Cmdable) (n int64, err error) {
	pattern := escapeGlob(e.prefix) + "*"
	free := time.Now().Add(scanFreely)
	for cursor := uint64(0); ; {
		begin := time.Now()
		keys, next, err := server.Scan(ctx, cursor, pattern, scanBatch).Result()
		if err != nil {
			return 0, err
		}
		n += int64(len(keys))
		if cursor = next; cursor == 0 {
			return n, nil
		}
		if begin.Before(free) {
			continue
		}
		if err := rest(ctx, time.Since(begin)); err != nil {
			return 0, err
		}
	}
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
