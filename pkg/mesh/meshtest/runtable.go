package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// RunTable checks that tables made by newTable keep the contract of mesh.Table. newTable is called once for each case
// and returns an empty table, or one whose keys service:* and config:* are empty. The expiry case takes about two
// seconds of real time.
func RunTable(t *testing.T, newTable func(t *testing.T) mesh.Table) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, table mesh.Table)
	}{
		{"an absent key is ErrNotFound", tableAbsent},
		{"what is put is read back unchanged", tableRoundTrip},
		{"GetMany keeps the order and has nil for absent keys", tableGetMany},
		{"TryPut without etag only creates", tableCreate},
		{"TryPut with an old etag is a conflict", tableStale},
		{"an etag is not used again after a delete", tableEtagReuse},
		{"Delete removes, and twice is no error", tableDelete},
		{"TryDelete removes what has the etag", tableTryDelete},
		{"values expire, and every write sets the expiry anew", tableExpiry},
		{"concurrent compare-and-set loses nothing", tableConcurrent},
		{"concurrent Put does not fail", tableConcurrentPut},
		{"an ended context ends the call", tableContext},
		{"a registry works on it", tableRegistry},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newTable(t)) })
	}
}

const tableKey = "service:registry:bannou:meshtest-1"

func doc(n int64) []byte { return fmt.Appendf(nil, `{"n":%d,"text":"a \"b\" é"}`, n) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func tableAbsent(t *testing.T, table mesh.Table) {
	_, _, err := table.Get(testContext(t), tableKey)
	require.ErrorIs(t, err, mesh.ErrNotFound)
}

func tableRoundTrip(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	// One key of each family: an implementation may keep them in different stores. The number is one that a float64
	// cannot hold.
	for i, key := range []string{tableKey, "service:heartbeat:bannou", "service:apps", "service:routing:game-session",
		"config:current", "config:history:12"} {
		want := doc(1<<53 + 1 + int64(i))
		require.NoError(t, table.Put(ctx, key, want, time.Minute), key)
		got, etag, err := table.Get(ctx, key)
		require.NoError(t, err, key)
		assert.NotEmpty(t, etag, key)
		assert.JSONEq(t, string(want), string(got), key)
		var exact struct{ N json.Number }
		require.NoError(t, json.Unmarshal(got, &exact))
		assert.Equal(t, fmt.Sprint(1<<53+1+int64(i)), exact.N.String(), "numbers survive to the digit")
	}
	require.NoError(t, table.Put(ctx, "config:version", []byte("41"), 0))
	got, _, err := table.Get(ctx, "config:version")
	require.NoError(t, err)
	assert.Equal(t, "41", string(got), "a value may be a bare number")
}

func tableGetMany(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	require.NoError(t, table.Put(ctx, "config:history:3", doc(2), 0))
	values, err := table.GetMany(ctx, []string{"config:history:3", "service:registry:bannou:none", tableKey})
	require.NoError(t, err)
	require.Len(t, values, 3)
	assert.JSONEq(t, string(doc(2)), string(values[0]))
	assert.Nil(t, values[1])
	assert.JSONEq(t, string(doc(1)), string(values[2]))
	values, err = table.GetMany(ctx, nil)
	require.NoError(t, err)
	assert.Empty(t, values)
}

func tableCreate(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.TryPut(ctx, tableKey, doc(1), "", time.Minute))
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(2), "", time.Minute), mesh.ErrConflict)
	got, _, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	assert.JSONEq(t, string(doc(1)), string(got), "a refused write changes nothing")
}

func tableStale(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	_, first, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	require.NoError(t, table.TryPut(ctx, tableKey, doc(2), first, time.Minute))
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(3), first, time.Minute), mesh.ErrConflict)
	_, second, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	require.NoError(t, table.Put(ctx, tableKey, doc(2), time.Minute))
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(3), second, time.Minute), mesh.ErrConflict,
		"a Put of an equal value changes the etag too")
}

func tableEtagReuse(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	_, old, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	require.NoError(t, table.Delete(ctx, tableKey))
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(2), old, time.Minute), mesh.ErrConflict, "the key is absent")
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(2), old, time.Minute), mesh.ErrConflict, "the etag is of an earlier life")
}

func tableDelete(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	require.NoError(t, table.Delete(ctx, tableKey))
	require.NoError(t, table.Delete(ctx, tableKey))
	_, _, err := table.Get(ctx, tableKey)
	require.ErrorIs(t, err, mesh.ErrNotFound)
}

func tableTryDelete(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	require.NoError(t, table.Put(ctx, tableKey, doc(1), time.Minute))
	_, old, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	require.NoError(t, table.Put(ctx, tableKey, doc(2), time.Minute))
	require.ErrorIs(t, table.TryDelete(ctx, tableKey, old), mesh.ErrConflict)
	value, etag, err := table.Get(ctx, tableKey)
	require.NoError(t, err, "a refused delete removes nothing")
	assert.JSONEq(t, string(doc(2)), string(value))
	require.NoError(t, table.TryDelete(ctx, tableKey, etag))
	_, _, err = table.Get(ctx, tableKey)
	require.ErrorIs(t, err, mesh.ErrNotFound)
	require.ErrorIs(t, table.TryDelete(ctx, tableKey, etag), mesh.ErrNotFound)
}

func tableExpiry(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	const short = time.Second
	gone, longer, forever := tableKey, "service:heartbeat:bannou", "service:routing:kept"
	for _, key := range []string{gone, longer, forever} {
		require.NoError(t, table.Put(ctx, key, doc(1), short))
	}
	_, etag, err := table.Get(ctx, longer)
	require.NoError(t, err)
	require.NoError(t, table.TryPut(ctx, longer, doc(2), etag, time.Minute), "a write sets a new expiry")
	_, etag, err = table.Get(ctx, forever)
	require.NoError(t, err)
	require.NoError(t, table.TryPut(ctx, forever, doc(2), etag, 0), "0 removes the expiry")

	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, _, err := table.Get(ctx, gone)
		assert.ErrorIs(c, err, mesh.ErrNotFound)
	}, 5*short, 20*time.Millisecond)
	values, err := table.GetMany(ctx, []string{gone, longer, forever})
	require.NoError(t, err)
	assert.Nil(t, values[0], "GetMany does not see what has expired")
	assert.NotNil(t, values[1])
	assert.NotNil(t, values[2])
	require.NoError(t, table.TryPut(ctx, gone, doc(3), "", time.Minute), "an expired key is absent")
}

func tableConcurrent(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	const writers, each = 8, 25
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				increment(ctx, t, table)
			}
		})
	}
	all.Wait()
	value, _, err := table.Get(ctx, tableKey)
	require.NoError(t, err)
	assert.JSONEq(t, string(doc(writers*each)), string(value))
}

func increment(ctx context.Context, t *testing.T, table mesh.Table) {
	for {
		var counter struct{ N int64 }
		value, etag, err := table.Get(ctx, tableKey)
		if err == nil {
			err = json.Unmarshal(value, &counter)
		}
		if err != nil && !errors.Is(err, mesh.ErrNotFound) {
			t.Error(err)
			return
		}
		err = table.TryPut(ctx, tableKey, doc(counter.N+1), etag, time.Minute)
		if errors.Is(err, mesh.ErrConflict) {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
}

func tableConcurrentPut(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	var all sync.WaitGroup
	for n := range int64(8) {
		all.Go(func() {
			for range 20 {
				assert.NoError(t, table.Put(ctx, tableKey, doc(n), time.Minute))
			}
		})
	}
	all.Wait()
}

func tableContext(t *testing.T, table mesh.Table) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := table.Get(ctx, tableKey)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, table.Put(ctx, tableKey, doc(1), 0), context.Canceled)
	require.ErrorIs(t, table.TryPut(ctx, tableKey, doc(1), "", 0), context.Canceled)
}

func tableRegistry(t *testing.T, table mesh.Table) {
	ctx := testContext(t)
	r, err := mesh.NewRegistry(table, new(Feed), mesh.RegistryConfig{})
	require.NoError(t, err)
	const nodes = 12
	var all sync.WaitGroup
	for i := range nodes {
		all.Go(func() {
			assert.NoError(t, r.Register(ctx, mesh.Endpoint{AppID: "bannou", InstanceID: fmt.Sprintf("node-%02d", i),
				Host: "127.0.0.1", Port: 3500 + i, Services: []string{"state"}}))
		})
	}
	all.Wait()
	endpoints, err := r.List(ctx, false)
	require.NoError(t, err)
	assert.Len(t, endpoints, nodes, "no registration is lost")
	m, err := r.SetMappings(ctx, map[string]string{"state": "bannou-state"}, "node-01")
	require.NoError(t, err)
	assert.Equal(t, int64(1), m.Version)
}
