package redisstate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A lookup is the reading of one key: its fields, all in one command, and how long it has to live.
type lookup struct {
	fields *redis.SliceCmd
	ttl    *redis.Cmd
}

func look(ctx context.Context, pipe redis.Pipeliner, key string) lookup {
	return lookup{
		fields: pipe.HMGet(ctx, key, "data", "version", "nonce", "createdAt", "updatedAt"),
		ttl:    pipe.Do(ctx, "pttl", key),
	}
}

// Get implements state.Engine.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	lookups := make([]lookup, len(keys))
	pipe := e.client.Pipeline()
	for i, key := range keys {
		lookups[i] = look(ctx, pipe, e.prefix+key)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	now := time.Now()
	records := make([]state.Record, len(keys))
	for i, key := range keys {
		record, err := lookups[i].record(key, now)
		if errors.Is(err, errHalf) {
			record, err = e.getAlone(ctx, key)
		}
		if err != nil {
			return nil, e.keyError(key, e.errors.read(ctx, err))
		}
		records[i] = record
	}
	return records, nil
}

// errHalf reports a key that exists without being a record. Unless it is corrupt, it was created between the two commands
// that looked at it.
var errHalf = fmt.Errorf("%w: the Redis hash has no data or no version", state.ErrCorrupt)

// getAlone reads a key with nothing between the two commands.
func (e *engine) getAlone(ctx context.Context, key string) (state.Record, error) {
	var l lookup
	_, _ = e.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		l = look(ctx, pipe, e.prefix+key)
		return nil
	})
	return l.record(key, time.Now())
}

// record makes a record of what was found.
func (l lookup) record(key string, now time.Time) (state.Record, error) {
	r := state.Record{Key: key}
	fields, err := l.fields.Result()
	if err != nil {
		return r, err
	}
	ttl, err := l.ttl.Int64() // milliseconds; -1: never, -2: absent
	if err != nil {
		return r, err
	}
	data, hasData := fields[0].(string)
	version, hasVersion := fields[1].(string)
	if !hasData && !hasVersion && ttl == -2 {
		return r, nil
	}
	if !hasData || !hasVersion {
		return r, errHalf
	}
	if r.Version, err = strconv.ParseInt(version, 10, 64); err != nil {
		return r, fmt.Errorf("%w: the version %q is not a number", state.ErrCorrupt, version)
	}
	nonce, _ := fields[2].(string)
	r.Found, r.Value, r.ETag = true, []byte(data), formatETag(version, nonce)
	if r.CreatedAt, err = parseTime(fields[3]); err != nil {
		return r, err
	}
	if r.UpdatedAt, err = parseTime(fields[4]); err != nil {
		return r, err
	}
	if ttl != -1 { // -2: it went in this moment
		r.ExpiresAt = now.Add(time.Duration(max(ttl, 0)) * time.Millisecond).UTC()
	}
	return r, nil
}

// parseTime reads a time; a hash that another program made has none.
func parseTime(field any) (time.Time, error) {
	text, ok := field.(string)
	if !ok {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fmt.Errorf("%w: %q is not a time", state.ErrCorrupt, text)
	}
	return t.UTC(), nil
}
