package redisstate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is one store: the keys that begin with its prefix.
type engine struct {
	lines  *lines
	store  string
	prefix string // with the colon
	script string // the hash by which Redis names apply.lua

	anyKeys bool // Transact takes keys without a common hash tag

	dapr   bool        // the prefix is that of an app of Dapr, whose rows these are
	looked atomic.Bool // the rows are such that they can be used
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	cmds := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		cmds[i] = redis.NewIntCmd(ctx, "exists", e.prefix+key)
	}
	if err := e.read(ctx, keys, cmds); err != nil {
		return nil, err
	}
	found := make([]bool, len(keys))
	for i, cmd := range cmds {
		found[i] = cmd.(*redis.IntCmd).Val() == 1
	}
	return found, nil
}

// read executes commands that change nothing, one for each key, in one round trip. One alone goes in the company of other
// callers' where there are any.
func (e *engine) read(ctx context.Context, keys []string, cmds []redis.Cmder) error {
	if err := e.ready(ctx); err != nil {
		return err
	}
	if len(cmds) > 1 {
		e.lines.exec(ctx, cmds...)
	} else if !e.lines.reads(ctx, e.prefix+keys[0]).do(ctx, cmds[0], 0) {
		return e.keyError(keys[0], readError(ctx, context.Cause(ctx)))
	}
	for i, cmd := range cmds {
		if err := readError(ctx, cmd.Err()); err != nil {
			return e.keyError(keys[i], err)
		}
	}
	return nil
}

// Apply implements state.Engine.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	if len(changes) == 1 {
		c := newCall(e.prefix, changes...)
		outcome := e.outcome(c, e.run(ctx, c))
		if outcome.Err = e.orNil(changes[0].Key, outcome.Err); errors.Is(outcome.Err, state.ErrUnavailable) {
			return nil, outcome.Err
		}
		return []state.Outcome{outcome}, nil
	}
	calls := make([]*call, len(changes))
	for i := range changes {
		calls[i] = newCall(e.prefix, changes[i])
	}
	e.runAll(ctx, calls)
	outcomes := make([]state.Outcome, len(changes))
	away := 0
	for i, c := range calls {
		outcomes[i] = e.outcome(c, writeError(ctx, c.cmd.Err(), c.stamp.sent()))
		if outcomes[i].Err = e.orNil(changes[i].Key, outcomes[i].Err); errors.Is(outcomes[i].Err, state.ErrUnavailable) {
			away++
		}
	}
	if away == len(changes) {
		return nil, outcomes[0].Err // the server is away, and the keys have nothing to do with it
	}
	return outcomes, nil
}

// outcome is that of a call of one change.
func (e *engine) outcome(c *call, err error) state.Outcome {
	if err != nil {
		return state.Outcome{Err: err}
	}
	outcomes, err := c.outcomes()
	if err != nil {
		return state.Outcome{Err: err}
	}
	return outcomes[0]
}

// Transact implements state.Engine.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.sameTag(changes); err != nil && !e.anyKeys {
		return nil, e.storeError(err)
	}
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	c := newCall(e.prefix, changes...)
	if err := e.run(ctx, c); err != nil {
		return nil, e.storeError(err)
	}
	outcomes, err := c.outcomes()
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

func (e *engine) orNil(key string, err error) error {
	if err == nil {
		return nil
	}
	return e.keyError(key, err)
}

func (e *engine) keyError(key string, err error) error {
	return fmt.Errorf("state: store %q: key %q: %w", e.store, key, err)
}

func (e *engine) storeError(err error) error {
	return fmt.Errorf("state: store %q: %w", e.store, err)
}
