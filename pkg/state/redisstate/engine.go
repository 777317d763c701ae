package redisstate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is one store: the keys that begin with its prefix.
type engine struct {
	client redis.UniversalClient
	errors classifier
	store  string
	prefix string // with the colon
	script string // the hash by which Redis names apply.lua
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	pipe := e.client.Pipeline()
	counts := make([]*redis.IntCmd, len(keys))
	for i, key := range keys {
		counts[i] = pipe.Exists(ctx, e.prefix+key)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	found := make([]bool, len(keys))
	for i, count := range counts {
		if err := e.errors.read(ctx, count.Err()); err != nil {
			return nil, e.keyError(keys[i], err)
		}
		found[i] = count.Val() == 1
	}
	return found, nil
}

// Apply implements state.Engine.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	now := time.Now()
	calls := make([]*call, len(changes))
	for i := range changes {
		calls[i] = newCall(e.prefix, now, changes[i])
	}
	run(ctx, e.client, e.script, calls)
	outcomes := make([]state.Outcome, len(changes))
	away := 0
	for i, c := range calls {
		answers, err := e.answers(ctx, c)
		if errors.Is(err, state.ErrUnavailable) {
			away++
		}
		if err != nil {
			answers = []state.Outcome{{Err: err}}
		}
		if outcomes[i] = answers[0]; outcomes[i].Err != nil {
			outcomes[i].Err = e.keyError(changes[i].Key, outcomes[i].Err)
		}
	}
	if away > 0 && away == len(changes) {
		return nil, outcomes[0].Err // the server is away, and the keys have nothing to do with it
	}
	return outcomes, nil
}

// Transact implements state.Engine.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.sameTag(changes); err != nil {
		return nil, e.storeError(err)
	}
	c := newCall(e.prefix, time.Now(), changes...)
	run(ctx, e.client, e.script, []*call{c})
	outcomes, err := e.answers(ctx, c)
	if err != nil {
		return nil, e.storeError(err)
	}
	for i, o := range outcomes {
		if o.Err != nil {
			return nil, e.keyError(changes[i].Key, o.Err)
		}
	}
	return outcomes, nil
}

func (e *engine) answers(ctx context.Context, c *call) ([]state.Outcome, error) {
	if err := e.errors.write(ctx, c.cmd.Err()); err != nil {
		return nil, err
	}
	return c.outcomes()
}

// scanBatch is how many keys a server looks at before others have their turn.
const scanBatch = 1000

// Len implements state.Engine. It scans the whole database; a key may count twice while Redis shrinks its table.
func (e *engine) Len(ctx context.Context) (int64, error) {
	var n atomic.Int64
	scan := func(ctx context.Context, node redis.Cmdable) error {
		for cursor := uint64(0); ; {
			keys, next, err := node.Scan(ctx, cursor, escapeGlob(e.prefix)+"*", scanBatch).Result()
			if err != nil {
				return err
			}
			n.Add(int64(len(keys)))
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if cluster, ok := e.client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return scan(ctx, node) })
	} else {
		err = scan(ctx, e.client)
	}
	if err = e.errors.read(ctx, err); err != nil {
		return 0, e.storeError(err)
	}
	return n.Load(), nil
}

// sameTag refuses keys that a cluster may keep on different servers.
func (e *engine) sameTag(changes []state.Change) error {
	first := hashTag(e.prefix + changes[0].Key)
	for i := range changes[1:] {
		if key := changes[i+1].Key; hashTag(e.prefix+key) != first {
			return fmt.Errorf("%w: a transaction on Redis needs keys that share a hash tag, such as {order-7}:head and {order-7}:lines; %q and %q do not",
				state.ErrUnsupported, changes[0].Key, key)
		}
	}
	return nil
}

// hashTag returns the part of a Redis key that decides on which server of a cluster it is: what stands in the first
// pair of braces, if that is not empty, or else the whole key.
func hashTag(key string) string {
	_, after, opened := strings.Cut(key, "{")
	if tag, _, closed := strings.Cut(after, "}"); opened && closed && tag != "" {
		return tag
	}
	return key
}

// escapeGlob returns a pattern that matches just s.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

func (e *engine) keyError(key string, err error) error {
	return fmt.Errorf("state: store %q: key %q: %w", e.store, key, err)
}

func (e *engine) storeError(err error) error {
	return fmt.Errorf("state: store %q: %w", e.store, err)
}
