package daprstate

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is one store: a component, or the keys of one that begin with a prefix.
type engine struct {
	driver    *Driver
	store     string
	component string
	prefix    string
}

// parallelism is how many requests one call makes at a time, and how many keys the sidecar reads at a time for it.
const parallelism = 32

// path is that of the component, and of what is below it.
func (e *engine) path(below string) string {
	return "/v1.0/state/" + url.PathEscape(e.component) + below
}

// begin refuses what no request would be made for, and says what the component can do.
func (e *engine) begin(ctx context.Context) (component, error) {
	if e.driver.closed.Load() {
		return component{}, e.storeError(errClosed)
	}
	if err := ctx.Err(); err != nil {
		return component{}, e.storeError(context.Cause(ctx))
	}
	c, err := e.driver.component(ctx, e.component)
	if err != nil {
		return c, e.storeError(err)
	}
	return c, nil
}

// Get implements state.Engine.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	c, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	return e.read(ctx, c, keys)
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	records, err := e.Get(ctx, keys)
	if err != nil {
		return nil, err
	}
	found := make([]bool, len(records))
	for i, r := range records {
		found[i] = r.Found
	}
	return found, nil
}

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) {
	if _, err := e.begin(ctx); err != nil {
		return 0, err
	}
	return 0, e.storeError(fmt.Errorf("%w: Dapr's API cannot count keys", state.ErrUnsupported))
}

// A found is one key of a bulk answer.
type found struct {
	Key      string            `json:"key"`
	Data     jsontext.Value    `json:"data"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Error    string            `json:"error"`
}

// read reads all keys in one request: their names are in its body, where every one can be said. The answer is in the order of the keys.
func (e *engine) read(ctx context.Context, c component, keys []string) ([]state.Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	asked := struct {
		Keys        []string `json:"keys"`
		Parallelism int      `json:"parallelism"`
	}{make([]string, 0, len(keys)), parallelism}
	place := make(map[string]int, len(keys)) // each is asked for once
	for _, key := range keys {
		if err := e.checkKey(key); err != nil {
			return nil, err
		}
		if _, twice := place[key]; !twice {
			place[key] = len(asked.Keys)
			asked.Keys = append(asked.Keys, e.prefix+key)
		}
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return nil, e.storeError(fmt.Errorf("%w: %w", state.ErrInvalid, err))
	}
	answer, _, err := e.driver.sidecar.do(ctx, "POST", e.path("/bulk"), nil, body)
	if err != nil {
		return nil, e.storeError(e.driver.sidecar.reading(ctx, err))
	}
	var all []found
	if err := json.Unmarshal(answer, &all, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, e.keyError(keys[0], fmt.Errorf("%w: the sidecar's answer about it and %d others cannot be read: %w", state.ErrCorrupt, len(keys)-1, err))
	}
	byKey := make(map[string]found, len(all))
	for _, f := range all {
		byKey[strings.TrimPrefix(f.Key, e.prefix)] = f
	}
	records := make([]state.Record, len(keys))
	for i, key := range keys {
		f, ok := byKey[key]
		switch {
		case !ok:
			return nil, e.keyError(key, fmt.Errorf("%w: the sidecar says nothing about it", state.ErrUnavailable))
		case f.Error != "":
			return nil, e.keyError(key, fmt.Errorf("%w: the component says: %s", state.ErrUnavailable, f.Error))
		}
		records[i] = f.record(key, c)
	}
	return records, nil
}

func (f found) record(key string, c component) state.Record {
	r := state.Record{Key: key}
	if f.ETag == nil || len(f.Data) == 0 {
		return r
	}
	r.Found, r.ETag, r.Value = true, *f.ETag, append([]byte(nil), f.Data...)
	if c.counts() {
		r.Version, _ = strconv.ParseInt(r.ETag, 10, 64)
	}
	if at, err := time.Parse(time.RFC3339, f.Metadata["ttlExpireTime"]); err == nil {
		r.ExpiresAt = at.UTC()
	}
	return r
}

// separator stands in Dapr's rows between the app and its key.
const separator = "||"

func (e *engine) checkKey(key string) error {
	if strings.Contains(key, separator) {
		return e.keyError(key, fmt.Errorf("%w: Dapr allows no key with %s in it", state.ErrInvalid, separator))
	}
	return nil
}

func (e *engine) keyError(key string, err error) error {
	return fmt.Errorf("state: store %q: key %q: %w", e.store, key, err)
}

func (e *engine) storeError(err error) error {
	return fmt.Errorf("state: store %q: %w", e.store, err)
}
