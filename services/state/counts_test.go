package state_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// A stalling driver keeps stores in memory. It counts those called "slow" when it is let, or when the caller gives up.
type stalling struct {
	state.Driver
	let    chan struct{} // closed to let it count
	counts atomic.Int64  // begun
}

func (d *stalling) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	engine, err := d.Driver.Open(ctx, cfg)
	if err != nil || cfg.Name != "slow" {
		return engine, err
	}
	return stallingEngine{engine, d}, nil
}

type stallingEngine struct {
	state.Engine
	driver *stalling
}

func (e stallingEngine) Len(ctx context.Context) (int64, error) {
	e.driver.counts.Add(1)
	select {
	case <-e.driver.let:
		return e.Engine.Len(ctx)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// All who ask for a count share one, and none of them waits for long. When it has ended, it is there for the next.
func TestCountsAreShared(t *testing.T) {
	d := &stalling{Driver: memorystate.New(), let: make(chan struct{})}
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "slow", Backend: "memory"}, {Name: "swift", Backend: "memory"}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	service, err := statesvc.New(statesvc.Config{Factory: factory})
	require.NoError(t, err)
	n := serve(t, service, factory.Close)
	n.must("/state/save", `{"storeName":"slow","key":"k","value":1}`)
	list := func() (slow, swift object) {
		stores := n.must("/state/list-stores", `{"includeStats":true}`)["stores"].([]any)
		return stores[0].(object), stores[1].(object)
	}

	begin := time.Now()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			slow, swift := list()
			assert.NotContains(t, slow, "keyCount")
			assert.Equal(t, "timeout", slow["code"])
			if count, counted := swift["keyCount"]; counted { // within a second, on a machine that is not too busy
				assert.EqualValues(t, 0, count)
			} else {
				assert.Equal(t, "timeout", swift["code"])
			}
		})
	}
	wait.Wait()
	require.Less(t, time.Since(begin), 20*time.Second)
	require.Eventually(t, func() bool { _, swift := list(); return swift["keyCount"] != nil }, 20*time.Second, time.Millisecond, "the slow one is not in its way")
	require.EqualValues(t, 1, d.counts.Load())

	close(d.let)
	require.Eventually(t, func() bool { slow, _ := list(); return slow["keyCount"] != nil }, 20*time.Second, time.Millisecond)
	slow, _ := list()
	require.EqualValues(t, 1, slow["keyCount"])
	require.NotContains(t, slow, "code")
	require.EqualValues(t, 1, d.counts.Load(), "a count that took a second is good for ten")
}

// A service that stops does not wait for a count to end by itself.
func TestStopEndsCounts(t *testing.T) {
	d := &stalling{Driver: memorystate.New(), let: make(chan struct{})}
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "slow", Backend: "memory"}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	service, err := statesvc.New(statesvc.Config{Factory: factory})
	require.NoError(t, err)
	t.Run("counting", func(t *testing.T) {
		n := serve(t, service, factory.Close) // which stops with this part of the test
		n.must("/state/list-stores", `{"includeStats":true}`)
	})
	require.EqualValues(t, 1, d.counts.Load())
}
