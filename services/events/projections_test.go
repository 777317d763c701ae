package events_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/events"
)

// counting is a projection that counts, in memory, and waits while it is to.
func counting(category string) (projection.Definition, *atomic.Bool) {
	var away atomic.Bool
	return projection.Definition{Name: "counts_" + category, Category: category, Apply: func(context.Context, projection.Batch) error {
		if away.Load() {
			return state.ErrUnavailable
		}
		return nil
	}}, &away
}

func versions(t *testing.T, answer object) []object {
	t.Helper()
	list, ok := answer["versions"].([]any)
	require.True(t, ok, "%v", answer)
	all := make([]object, len(list))
	for i := range list {
		all[i], ok = list[i].(object)
		require.True(t, ok)
	}
	return all
}

// A program's projections are listed and commanded through its host.
func TestProjections(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	definition, away := counting("test")
	set, err := projection.Open(t.Context(), log, projection.Config{Definitions: []projection.Definition{definition}, Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, set.Close(context.WithoutCancel(t.Context()))) })
	n := start(t, events.Config{Log: log, Projections: set})
	for i := range 3 {
		n.must("/events/append", `{"streams":[{"category":"test","id":"`+strconv.Itoa(i)+`","events":[{"type":"x","data":1}]}]}`)
	}
	_, err = set.Await(t.Context(), "counts_test", 3)
	require.NoError(t, err)
	list := versions(t, n.must("/events/projections/list", `{}`))
	require.Len(t, list, 1)
	require.Equal(t, "live", list[0]["state"])
	require.EqualValues(t, 3, list[0]["position"])
	require.EqualValues(t, 0, list[0]["lag"])

	require.Equal(t, "paused", versions(t, n.must("/events/projections/pause", `{"name":"counts_test"}`))[0]["state"])
	require.Equal(t, "live", versions(t, n.must("/events/projections/resume", `{"name":"counts_test"}`))[0]["state"])

	away.Store(true)
	built := n.must("/events/projections/rebuild", `{"name":"counts_test","hold":true}`)
	require.EqualValues(t, 2, built["version"])
	require.Len(t, versions(t, built), 2)
	p := n.refused("/events/projections/swap", `{"name":"counts_test","version":2}`, 409, "conflict")
	require.Contains(t, p["detail"], "has not caught up")
	n.refused("/events/projections/drop", `{"name":"counts_test","version":1}`, 409, "conflict")
	n.refused("/events/projections/drop", `{"name":"counts_test","version":9}`, 404, "not_found")
	n.refused("/events/projections/pause", `{"name":"other"}`, 404, "not_found")
	n.refused("/events/projections/pause", `{}`, 400, "missing_member")
	away.Store(false)
	n.becomes("/events/projections/list", `{"name":"counts_test"}`, func(answer object) bool {
		list, _ := answer["versions"].([]any)
		return len(list) == 2 && list[1].(object)["state"] == "ready"
	})
	list = versions(t, n.must("/events/projections/swap", `{"name":"counts_test","version":2}`))
	require.Equal(t, "standby", list[0]["state"])
	require.Equal(t, true, list[1]["live"])
	n.must("/events/projections/drop", `{"name":"counts_test","version":1}`)
	n.becomes("/events/projections/list", `{}`, func(answer object) bool {
		list, _ := answer["versions"].([]any)
		return len(list) == 1
	})
}

// Projections of a category are seen by who may read it, and commanded by who may write it. A service without definitions serves those of others.
func TestProjectionsOfReservedCategories(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	open, _ := counting("open")
	closed, _ := counting("account")
	set, err := projection.Open(t.Context(), log, projection.Config{Definitions: []projection.Definition{open, closed}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, set.Close(context.WithoutCancel(t.Context()))) })
	n := start(t, events.Config{Log: log, Access: reserved(t)})
	list := versions(t, n.must("/events/projections/list", `{}`))
	require.Len(t, list, 1)
	require.Equal(t, "counts_open", list[0]["name"])
	n.refused("/events/projections/list", `{"name":"counts_account"}`, 401, "unauthorized")
	n.refused("/events/projections/pause", `{"name":"counts_account"}`, 401, "unauthorized")
	require.Len(t, versions(t, n.as(auditToken).must("/events/projections/list", `{}`)), 2)
	n.as(auditToken).refused("/events/projections/rebuild", `{"name":"counts_account"}`, 403, "forbidden")
	n.as(bankToken).must("/events/projections/pause", `{"name":"counts_account"}`)
	require.Equal(t, "paused", versions(t, n.must("/events/projections/pause", `{"name":"counts_open"}`))[0]["state"])
}
