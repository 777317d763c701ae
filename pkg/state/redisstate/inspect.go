package redisstate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
		if err := e.look(ctx, server, limit); err != nil {
			return e.storeError(err)
		}
	}
	return nil
}

// look goes over the keys of one server by its own SCAN, which needs no other right: that keys come twice, or not at all, after a restart of the
// server is no harm here.
func (e *engine) look(ctx context.Context, server redis.Cmdable, limit int) error {
	for looked, place := 0, uint64(0); looked < limit; {
		count := min(limit-looked, scanMost)
		keys, next, err := server.Scan(ctx, place, escapeGlob(e.prefix)+"*", int64(count)).Result()
		if err != nil {
			return readError(ctx, err)
		}
		for i := range keys {
			keys[i] = strings.TrimPrefix(keys[i], e.prefix)
		}
		if err := e.usable(ctx, server, keys); err != nil {
			return err
		}
		if looked, place = looked+count, next; place == 0 {
			return nil
		}
	}
	return nil
}

// usable refuses keys of actors, and encrypted values, but for what this driver wrote last.
func (e *engine) usable(ctx context.Context, server redis.Cmdable, keys []string) error {
	look := slices.Clone(keys[:min(len(keys), valuesRead)])
	for _, key := range keys[len(look):] {
		if daprrows.IsActors(key) {
			look = append(look, key)
		}
	}
	if len(look) == 0 {
		return nil
	}
	pipe := server.Pipeline()
	rows := make([]*redis.SliceCmd, len(look))
	for i, key := range look {
		rows[i] = pipe.HMGet(ctx, e.prefix+key, "data", "version", "expiry")
	}
	_, err := pipe.Exec(ctx)
	for i, row := range rows {
		var answer redis.Error
		if errors.As(row.Err(), &answer) { // it is no hash: no row of Dapr's
			continue
		}
		if row.Err() != nil {
			return readError(ctx, err)
		}
		data, _ := row.Val()[0].(string)
		version, _ := row.Val()[1].(string)
		expiry, _ := row.Val()[2].(string)
		switch _, ours, _ := parseExpiry(expiry, version); {
		case ours:
		case daprrows.IsActors(look[i]):
			return fmt.Errorf("%w: the key %q is %s", state.ErrInvalid, e.prefix+look[i], daprrows.NoActors)
		case daprrows.IsEncrypted([]byte(data)):
			return fmt.Errorf("%w: the value of the key %q is encrypted by Dapr: %s", state.ErrInvalid, e.prefix+look[i], daprrows.DecryptFirst)
		}
	}
	return nil
}
