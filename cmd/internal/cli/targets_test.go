package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

func TestWhatWasDoneAboutFailuresIsTold(t *testing.T) {
	require.Empty(t, resilience(&meshapi.Target{Breaker: "closed"}))
	require.Equal(t, "its breaker is open and opened 2 times; 7 further attempts, 3 refused by the budget; 4 hedges, 1 won; "+
		"5 calls in the bulkhead, 6 wait, 8 turned away", resilience(&meshapi.Target{Breaker: "open", BreakerOpened: 2, Retries: 7,
		RetriesRefused: 3, Hedges: 4, HedgesWon: 1, Calls: 5, Waiting: 6, Overloaded: 8}))
}
