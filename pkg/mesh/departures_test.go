package mesh_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// Whatever the order in which changes are heard, and however often: the last one holds.
func TestChangesInAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		feed := new(meshtest.Feed)
		d := mesh.NewDirectory(newRegistry(t, meshtest.NewTable(), feed), feed, mesh.DirectoryConfig{RefreshInterval: time.Hour})
		run, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(run) }()
		<-d.Running()
		begin := time.Now().Add(-time.Minute)
		var changes []mesh.Change
		for i, kind := range rapid.SliceOfN(rapid.SampledFrom([]mesh.ChangeKind{mesh.ChangeRegistered, mesh.ChangeDegraded, mesh.ChangeDeregistered}), 1, 6).Draw(rt, "what happened") {
			e := endpoint("bannou", "node-1")
			e.LastSeen = begin.Add(time.Duration(i) * time.Second)
			changes = append(changes, mesh.Change{Kind: kind, Endpoint: e})
		}
		want := map[mesh.ChangeKind][]string{mesh.ChangeRegistered: {"node-1 healthy"}, mesh.ChangeDegraded: {"node-1 degraded"},
			mesh.ChangeDeregistered: {}}[changes[len(changes)-1].Kind]
		for _, c := range rapid.Permutation(append(changes, changes...)).Draw(rt, "heard") {
			require.NoError(rt, feed.Announce(context.Background(), c))
		}
		got := known(d, "bannou")
		stop()
		require.NoError(rt, <-ended)
		require.Equal(rt, want, got)
	})
}

// What was said before an instance left is on its way for minutes at most: who left is not remembered for ever.
func TestWhoLeftIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 1000 {
			e := endpoint("bannou", fmt.Sprint("node-", i))
			e.LastSeen = time.Now()
			require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeDeregistered, Endpoint: e}))
			pass(time.Second)
		}
		assert.LessOrEqual(t, w.directory.Remembered(), 90)
		pass(90 * time.Second)
		require.NoError(t, w.directory.Refresh(t.Context()))
		assert.Zero(t, w.directory.Remembered())
	})
}
