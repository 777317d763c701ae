package redisstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
)

var _ state.Inspector = (*engine)(nil)

const (
	// firstLook is how many of the database's keys are looked at before the rows of an app of Dapr are used. A component encrypts all that it
	// writes, and what is found later is refused when it is read.
	firstLook = 1000
	// valuesRead is how many values of one answer of the server are read.
	valuesRead = 500
)

// ready looks, until it has found nothing once, whether the rows of an app of Dapr can be used.
func (e *engine) ready(ctx context.Context) error {
	if !e.dapr || e.looked.Load() {
		return nil
	}
	if err := e.Inspect(ctx, firstLook); err != nil {
		return err
	}
	e.looked.Store(true)
	return nil
}

// Inspect implements state.Inspector by SCAN: the limit is how many of the database's keys are looked at, of whatever store. Only the rows of apps
// of Dapr are looked at: others are this driver's own.
func (e *engine) Inspect(ctx context.Context, limit int) error {
	if !e.dapr {
		return nil
	}
	masters, err := e.lines.masters(ctx)
	if err != nil {
		return e.storeError(readError(ctx, err))
	}
	for _, server := range masters {
		for looked, at := 0, (scanCursor{}); looked < limit; {
			count := min(limit-looked, scanMost)
			keys, err := e.scanServer(ctx, server, &at, count)
			if err == nil {
				err = e.usable(ctx, server, keys)
			}
			if err != nil {
				return e.storeError(err)
			}
			if looked += count; at.place == 0 {
				break
			}
		}
	}
	return nil
}

// usable refuses keys of actors, and encrypted values.
func (e *engine) usable(ctx context.Context, server redis.Cmdable, keys []string) error {
	for _, key := range keys {
		if daprrows.IsActors(key) {
			return fmt.Errorf("%w: the key %q is %s", state.ErrInvalid, e.prefix+key, daprrows.NoActors)
		}
	}
	keys = keys[:min(len(keys), valuesRead)]
	if len(keys) == 0 {
		return nil
	}
	pipe := server.Pipeline()
	values := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		values[i] = pipe.HGet(ctx, e.prefix+key, "data")
	}
	_, err := pipe.Exec(ctx)
	for i, value := range values {
		var answer redis.Error
		if errors.As(value.Err(), &answer) { // gone meanwhile, or no hash, which is found out when it is read
			continue
		}
		if value.Err() != nil {
			return readError(ctx, err)
		}
		if daprrows.IsEncrypted([]byte(value.Val())) {
			return fmt.Errorf("%w: the value of the key %q is encrypted by Dapr: %s", state.ErrInvalid, e.prefix+keys[i], daprrows.DecryptFirst)
		}
	}
	return nil
}
