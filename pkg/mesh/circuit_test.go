package mesh

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a client makes of an instance is told in the words of a circuit breaker, each change once.
func TestCircuitsOfAnInstance(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 2)
	var told []CircuitChange
	w.circuits = func(c CircuitChange) { told = append(told, c) }
	heard := func() (states []BreakerState) {
		for _, c := range told {
			require.Equal(t, [2]string{"app", "node-0"}, [2]string{c.AppID, c.InstanceID})
			require.NotEmpty(t, c.Reason)
			states = append(states, c.Previous, c.State)
		}
		told = nil
		return states
	}
	for range 5 {
		w.call(w.node(0), time.Millisecond, failed)
	}
	require.Equal(t, []BreakerState{BreakerClosed, BreakerOpen}, heard())
	w.now += 11 * time.Second
	w.call(w.node(0), time.Millisecond, failed)
	require.Equal(t, []BreakerState{BreakerOpen, BreakerHalfOpen, BreakerHalfOpen, BreakerOpen}, heard())
	w.now += 21 * time.Second
	for range 3 {
		w.call(w.node(0), time.Millisecond, succeeded)
	}
	require.Equal(t, []BreakerState{BreakerOpen, BreakerHalfOpen, BreakerHalfOpen, BreakerClosed}, heard())
	w.call(w.node(0), time.Millisecond, failed)
	w.call(w.node(0), time.Millisecond, succeeded)
	require.Empty(t, heard())
}
