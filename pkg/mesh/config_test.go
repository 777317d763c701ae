package mesh_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func TestMappingsAreOneVersionedValue(t *testing.T) {
	ctx, feed := t.Context(), new(meshtest.Feed)
	r := newRegistry(t, meshtest.NewTable(), feed)
	heard := listen(t, feed)

	m, err := r.Mappings(ctx)
	require.NoError(t, err)
	assert.Equal(t, int64(0), m.Version)
	assert.Equal(t, "bannou", m.AppID("state"), "everything is on bannou unless it is mapped")

	m, err = r.SetMappings(ctx, map[string]string{"state": "bannou-state", "auth": "bannou-auth"}, "node-1")
	require.NoError(t, err)
	assert.Equal(t, int64(1), m.Version)
	m, err = r.SetMappings(ctx, map[string]string{"state": "other"}, "node-1")
	require.NoError(t, err)
	assert.Equal(t, int64(2), m.Version)
	assert.Equal(t, "bannou", m.AppID("auth"), "replaced as a whole, not merged")
	m, err = r.SetMappings(ctx, nil, "node-2")
	require.NoError(t, err)
	assert.Equal(t, mesh.Mappings{Services: map[string]string{}, DefaultAppID: "bannou", Version: 3, SourceInstanceID: "node-2"}, m)
	assert.Equal(t, []string{"mappings", "mappings", "mappings"}, heard.take())

	_, err = r.SetMappings(ctx, map[string]string{"state": "Not a name"}, "")
	require.ErrorIs(t, err, mesh.ErrInvalid)
	require.ErrorContains(t, err, "mappings.state")
}

func TestAnnouncedMappingsAreTakenOverOnlyIfNewer(t *testing.T) {
	ctx := t.Context()
	r := newRegistry(t, meshtest.NewTable(), new(meshtest.Feed))
	announce := func(version int64, app string) bool {
		applied, err := r.ApplyMappings(ctx, mesh.Mappings{Services: map[string]string{"state": app}, Version: version})
		require.NoError(t, err)
		return applied
	}
	assert.True(t, announce(7, "seven"))
	assert.False(t, announce(7, "again"))
	assert.False(t, announce(3, "three"))
	m, err := r.Mappings(ctx)
	require.NoError(t, err)
	assert.Equal(t, int64(7), m.Version)
	assert.Equal(t, "seven", m.AppID("state"))
	m, err = r.SetMappings(ctx, map[string]string{"state": "eight"}, "")
	require.NoError(t, err)
	assert.Equal(t, int64(8), m.Version)
	history, err := r.ConfigHistory(ctx, 0)
	require.NoError(t, err)
	require.Len(t, history, 2, "versions that never were are not in the history")
	assert.Equal(t, int64(7), history[1].Version)

	// No announcement keeps mappings from being set.
	_, err = r.ApplyMappings(ctx, mesh.Mappings{Version: math.MaxInt64})
	require.ErrorIs(t, err, mesh.ErrInvalid)
	assert.True(t, announce(1<<53, "last"))
	m, err = r.SetMappings(ctx, map[string]string{"state": "after"}, "")
	require.NoError(t, err)
	assert.Equal(t, "after", m.AppID("state"))
}

func TestConfigSetHistoryRollback(t *testing.T) {
	ctx := t.Context()
	table := meshtest.NewTable()
	r := newRegistry(t, table, new(meshtest.Feed))
	_, err := r.RollbackConfig(ctx, 0, mesh.AnyVersion, "")
	require.ErrorIs(t, err, mesh.ErrNotFound)

	first := mesh.Config{Mappings: map[string]string{"state": "one"}, Settings: jsontext.Value(`{"big":9007199254740993}`)}
	c, err := r.SetConfig(ctx, 0, first)
	require.NoError(t, err)
	assert.Equal(t, int64(1), c.Version)
	_, err = r.SetConfig(ctx, 0, first)
	require.ErrorIs(t, err, mesh.ErrConflict)
	require.ErrorContains(t, err, "version 1")
	_, err = r.SetConfig(ctx, 1, mesh.Config{Settings: jsontext.Value(`[1]`)})
	require.ErrorIs(t, err, mesh.ErrInvalid)
	_, err = r.SetConfig(ctx, 1, mesh.Config{Mappings: map[string]string{"state": "two"}})
	require.NoError(t, err)

	_, err = r.RollbackConfig(ctx, 1, 1, "node-9")
	require.ErrorIs(t, err, mesh.ErrConflict, "somebody changed it meanwhile")
	c, err = r.RollbackConfig(ctx, 1, 2, "node-9")
	require.NoError(t, err)
	assert.Equal(t, int64(3), c.Version, "a rollback is a new version")
	assert.Equal(t, int64(1), c.RolledBackTo)
	assert.Equal(t, "one", c.Mappings["state"])
	assert.JSONEq(t, `{"big":9007199254740993}`, string(c.Settings))
	assert.Contains(t, string(c.Settings), "9007199254740993", "numbers survive to the digit")
	_, err = r.RollbackConfig(ctx, 4, mesh.AnyVersion, "")
	require.ErrorIs(t, err, mesh.ErrNotFound)

	history, err := r.ConfigHistory(ctx, 2)
	require.NoError(t, err)
	require.Len(t, history, 2)
	assert.Equal(t, int64(3), history[0].Version)
	assert.Equal(t, "two", history[1].Mappings["state"])

	// If someone removes the current configuration, versions go on from where they were: directories refuse lower ones.
	require.NoError(t, table.Delete(ctx, "config:current"))
	m, err := r.SetMappings(ctx, nil, "")
	require.NoError(t, err)
	assert.Equal(t, int64(4), m.Version)
}

// A failingTable refuses to write keys with a prefix.
type failingTable struct {
	*meshtest.Table
	prefix string
}

func (f *failingTable) TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error {
	if f.prefix != "" && strings.HasPrefix(key, f.prefix) {
		return mesh.ErrUnavailable
	}
	return f.Table.TryPut(ctx, key, value, etag, ttl)
}

func TestHistoryIsMendedBeforeAVersionIsReplaced(t *testing.T) {
	ctx := t.Context()
	table := &failingTable{Table: meshtest.NewTable(), prefix: "config:history:"}
	r := newRegistry(t, table, new(meshtest.Feed))
	_, err := r.SetMappings(ctx, map[string]string{"state": "one"}, "")
	require.NoError(t, err, "in force, though its copy in the history failed, as after a crash")
	_, err = r.SetMappings(ctx, map[string]string{"state": "two"}, "")
	require.ErrorIs(t, err, mesh.ErrUnavailable, "what is not in the history is not replaced")
	table.prefix = ""
	_, err = r.SetMappings(ctx, map[string]string{"state": "three"}, "")
	require.NoError(t, err)
	history, err := r.ConfigHistory(ctx, 0)
	require.NoError(t, err)
	require.Len(t, history, 2)
	assert.Equal(t, "one", history[1].Mappings["state"])
}

func TestConcurrentConfigChangesAreAllThere(t *testing.T) {
	table, feed := busyTable{meshtest.NewTable()}, new(meshtest.Feed)
	ctx := context.Background()
	const writers, each = 10, 10
	var all sync.WaitGroup
	for w := range writers {
		r := newRegistry(t, table, feed)
		all.Go(func() {
			for i := range each {
				_, err := r.SetMappings(ctx, map[string]string{fmt.Sprintf("s-%d-%d", w, i): "a"}, "")
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	history, err := newRegistry(t, table, feed).ConfigHistory(ctx, 1000)
	require.NoError(t, err)
	require.Len(t, history, writers*each, "no version is missing")
	services := map[string]bool{}
	for i, c := range history {
		assert.Equal(t, int64(writers*each-i), c.Version)
		for s := range c.Mappings {
			services[s] = true
		}
	}
	assert.Len(t, services, writers*each, "every change made a version of its own")
}
