package faults_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// clocked settles so many a second.
type clocked struct {
	begin time.Time
	rate  float64
}

func (c clocked) Settled() int { return int(c.rate * time.Since(c.begin).Seconds()) }

// A rate that does not come back to what it was is held against that of a load beside it, which the same machine bears.
func TestRecoveryIsMeasuredBesideANewLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recovered := func(m faults.Meter) faults.Recovery {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return m.Recover(ctx, faults.Share)
		}
		half := clocked{time.Now(), 500}
		came := recovered(faults.Meter{Ledger: half, Before: 1000})
		require.False(t, came.Full)
		require.InDelta(t, 0.5, came.Share, 0.01)
		require.Equal(t, "50 % in 0.0 s", came.String())

		came = recovered(faults.Meter{Ledger: half, Beside: clocked{time.Now(), 520}})
		require.True(t, came.Full)
		require.Equal(t, "96 % in 0.0 s beside a new one", came.String())
		require.False(t, recovered(faults.Meter{Ledger: half, Beside: clocked{time.Now(), 1000}}).Full, "the machine is not slower: the bus is")
	})
}
