package projection_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// On a steady load what is said to be left of a rebuild is right within a factor of two, from a tenth of it on: also while events are appended that the
// builder has to catch up with. The clock is a virtual one.
func TestEstimate(t *testing.T) {
	for _, appended := range []int{0, 1, 5, 8} { // while the builder applies ten
		t.Run(strconv.Itoa(appended)+" appended of ten applied", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { estimate(t, appended) })
		})
	}
}

func estimate(t *testing.T, appended int) {
	const (
		stored = 20_000
		batch  = 100
		takes  = 100 * time.Millisecond // a batch
	)
	ctx := t.Context()
	log := memoryevents.New(eventstore.Config{})
	var last atomic.Int64
	add := func(n int) {
		events := make([]eventstore.Event, n)
		for i := range events {
			events[i] = eventstore.Event{Type: "x", Data: jsontext.Value("1")}
		}
		appended, err := log.Append(ctx, eventstore.StreamID{Category: "c", ID: "a"}, eventstore.Any, events...)
		require.NoError(t, err)
		last.Store(appended.Position)
	}
	for range stored / batch {
		add(batch)
	}
	set, err := projection.Open(ctx, log, projection.Config{Definitions: []projection.Definition{{Name: "p", Category: "c", Batch: batch,
		Apply: func(ctx context.Context, b projection.Batch) error {
			if b.Events[len(b.Events)-1].Position < last.Load()-2*batch { // what is applied in the swap must not wait: who waits for that is not asleep
				<-time.After(takes * time.Duration(len(b.Events)) / batch)
			}
			return nil
		}}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close(context.WithoutCancel(ctx))) }()
	_, err = set.Await(ctx, "p", stored)
	require.NoError(t, err)

	built, err := set.Rebuild(ctx, "p", false)
	require.NoError(t, err)
	begun := time.Now()
	stop := make(chan struct{})
	var writing sync.WaitGroup
	if appended > 0 {
		writing.Go(func() {
			for tick := time.NewTicker(takes); ; {
				select {
				case <-tick.C:
					add(appended * batch / 10)
				case <-stop:
					tick.Stop()
					return
				}
			}
		})
	}
	type said struct{ at, left time.Duration }
	var all []said
	for done := false; !done; {
		<-time.After(time.Second)
		versions, err := set.List(ctx, "p")
		require.NoError(t, err)
		for _, v := range versions {
			if done = v.Version == built && v.Live; v.State == projection.Building {
				all = append(all, said{time.Since(begun), v.Remaining})
			}
		}
	}
	took := time.Since(begun)
	close(stop)
	writing.Wait()
	require.Greater(t, len(all), 10)
	for _, s := range all {
		if left := took - s.at; s.at > took/10 && left > 2*time.Second { // what is said is as old as a look
			require.Greater(t, s.left, left/2, "after %s of %s", s.at, took)
			require.Less(t, s.left, 2*left, "after %s of %s", s.at, took)
		}
	}
}
