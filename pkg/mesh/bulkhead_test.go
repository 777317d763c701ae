package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Whoever comes, waits, gives up and leaves in whatever order: never more than allowed are in, and no place is lost.
func TestBulkheadLosesNoPlace(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			b := newBulkhead(Bulkhead{MaxInFlight: 3, MaxWaiting: 10, MaxWait: 40 * time.Millisecond}, "app")
			var in, most, entered, refused, cancelled atomic.Int64
			var callers sync.WaitGroup
			for caller := range 40 {
				callers.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(caller)))
					for range 25 {
						ctx, cancel := context.WithCancel(t.Context())
						if random.IntN(2) == 0 {
							time.AfterFunc(time.Duration(random.IntN(30))*time.Millisecond, cancel)
						}
						switch err := b.enter(ctx); {
						case err == nil:
							entered.Add(1)
							if n := in.Add(1); n > most.Load() {
								most.Store(n)
							}
							<-time.After(time.Duration(random.IntN(20)) * time.Millisecond)
							in.Add(-1)
							b.leave()
						case errors.Is(err, ErrOverloaded):
							refused.Add(1)
						case errors.Is(err, context.Canceled):
							cancelled.Add(1)
						default:
							t.Error(err)
						}
						cancel()
						<-time.After(time.Duration(random.IntN(10)) * time.Millisecond)
					}
				})
			}
			callers.Wait()
			require.Equal(t, int64(3), most.Load(), "seed %d", seed)
			require.Equal(t, int64(40*25), entered.Load()+refused.Load()+cancelled.Load())
			require.Positive(t, cancelled.Load())
			inFlight, waiting, count := b.counts()
			require.Zero(t, inFlight, "seed %d", seed)
			require.Zero(t, waiting, "seed %d", seed)
			require.Equal(t, uint64(refused.Load()), count)
			for range 3 {
				require.NoError(t, b.enter(t.Context()))
			}
		})
	}
}

// A place that comes at the moment in which its caller gives up goes to the next one.
func TestBulkheadPassesOnAPlaceThatCameTooLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	turn := make(chan struct{})
	close(turn)
	gaveUp := 0
	for range 200 { // both have happened: which is seen is chance
		b := newBulkhead(Bulkhead{MaxInFlight: 1, MaxWaiting: 1}, "app")
		b.inFlight = 1 // the place that the turn stands for
		if err := b.wait(ctx, turn, nil); err != nil {
			gaveUp++
		} else {
			b.leave()
		}
		inFlight, _, _ := b.counts()
		require.Zero(t, inFlight)
	}
	require.Positive(t, gaveUp)
}
