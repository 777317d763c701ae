package redisstate

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
)

// fetch reads all fields of a record at once.
func fetch(ctx context.Context, key string) *redis.SliceCmd {
	return redis.NewSliceCmd(ctx, "hmget", key, "data", "version", "nonce", "createdAt", "updatedAt", "expiry")
}

// Get implements state.Engine. What it finds as this driver writes it takes one round trip; what is absent, or was written
// by another program last, one more.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	cmds := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		cmds[i] = fetch(ctx, e.prefix+key)
	}
	if err := e.read(ctx, keys, cmds); err != nil {
		return nil, err
	}
	records := make([]state.Record, len(keys))
	var open []int // that fields alone do not tell
	for i, key := range keys {
		whole, err := setRecord(&records[i], key, cmds[i].(*redis.SliceCmd).Val())
		if err == nil && e.dapr && !whole && daprrows.IsEncrypted(records[i].Value) {
			err = fmt.Errorf("%w: the value is encrypted by Dapr: %s", state.ErrCorrupt, daprrows.DecryptFirst)
		}
		if err != nil {
			return nil, e.keyError(key, err)
		}
		if !whole {
			open = append(open, i)
		}
	}
	if open != nil {
		return records, e.ask(ctx, keys, records, open)
	}
	return records, nil
}

// ask finds out by the time that keys have to live which are absent, and when the others expire.
func (e *engine) ask(ctx context.Context, keys []string, records []state.Record, open []int) error {
	asked := make([]string, len(open))
	cmds := make([]redis.Cmder, len(open))
	for i, at := range open {
		asked[i] = keys[at]
		cmds[i] = redis.NewIntCmd(ctx, "pttl", e.prefix+keys[at]) // milliseconds; -1: never, -2: absent
	}
	if err := e.read(ctx, asked, cmds); err != nil {
		return err
	}
	now := time.Now()
	for i, at := range open {
		ttl := cmds[i].(*redis.IntCmd).Val()
		r := &records[at]
		switch {
		case r.Found:
			r.ExpiresAt = expiresIn(now, ttl)
		case ttl != -2:
			if err := e.getAlone(ctx, r); err != nil {
				return e.keyError(r.Key, readError(ctx, err))
			}
		}
	}
	return nil
}

// expiresIn is zero for a key that never expires. One that is absent went in this moment.
func expiresIn(now time.Time, ttl int64) time.Time {
	if ttl == -1 {
		return time.Time{}
	}
	return now.Add(time.Duration(max(ttl, 0)) * time.Millisecond).UTC()
}

// getAlone reads a key that had none of the fields and then was there: created meanwhile, or not a record. So it looks with
// nothing between the two commands.
func (e *engine) getAlone(ctx context.Context, r *state.Record) error {
	var fields *redis.SliceCmd
	var ttl *redis.IntCmd
	key := e.prefix + r.Key
	_, err := e.lines.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		fields, ttl = fetch(ctx, key), redis.NewIntCmd(ctx, "pttl", key)
		return pipe.BatchProcess(ctx, fields, ttl)
	})
	if err != nil {
		return err
	}
	if _, err := setRecord(r, r.Key, fields.Val()); err != nil {
		return err
	}
	switch {
	case r.Found:
		r.ExpiresAt = expiresIn(time.Now(), ttl.Val())
	case ttl.Val() != -2:
		return errHalf
	}
	return nil
}

var errHalf = fmt.Errorf("%w: the Redis hash has no data or no version", state.ErrCorrupt)

// setRecord makes a record of a hash's fields. It is not whole where they do not tell whether the key is there, or when it
// expires.
func setRecord(r *state.Record, key string, fields []any) (whole bool, err error) {
	*r = state.Record{Key: key}
	data, hasData := fields[0].(string)
	version, hasVersion := fields[1].(string)
	if !hasData && !hasVersion {
		return false, nil
	}
	if !hasData || !hasVersion {
		return false, errHalf
	}
	if r.Version, err = strconv.ParseInt(version, 10, 64); err != nil {
		return false, fmt.Errorf("%w: the version %q is not a number", state.ErrCorrupt, version)
	}
	nonce, _ := fields[2].(string)
	r.Found, r.Value, r.ETag = true, []byte(data), formatETag(version, nonce)
	if r.CreatedAt, err = parseTime(fields[3]); err != nil {
		return false, err
	}
	if r.UpdatedAt, err = parseTime(fields[4]); err != nil {
		return false, err
	}
	expiry, _ := fields[5].(string)
	r.ExpiresAt, whole, err = parseExpiry(expiry, version)
	return whole, err
}

// parseExpiry reads what the script has written down for a version. For another version it says nothing: somebody else has
// written since.
func parseExpiry(text, version string) (at time.Time, known bool, err error) {
	of, when, _ := strings.Cut(text, " ")
	if of != version {
		return at, false, nil
	}
	if when == "never" {
		return at, true, nil
	}
	ms, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return at, false, fmt.Errorf("%w: the expiry %q is neither a number of milliseconds nor never", state.ErrCorrupt, text)
	}
	return time.UnixMilli(ms).UTC(), true, nil
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
