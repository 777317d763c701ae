package faults_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// The suite would say that nothing is lost if its ledger could not.
func TestLedger(t *testing.T) {
	l := faults.NewLedger(2, faults.Slack)
	begin := func() int {
		n, ok := l.Begin(t.Context(), faults.Properties{Deadline: time.Second})
		require.True(t, ok)
		return n
	}
	removed := begin()
	l.Published(removed, nil, 0)
	l.Excuse()

	both, twice, half, never, refused, late := begin(), begin(), begin(), begin(), begin(), begin()
	for _, n := range []int{both, twice, half, never} {
		l.Published(n, nil, -time.Second)
	}
	l.Published(refused, errors.New("not confirmed"), 0)
	l.Published(late, errors.New("not confirmed"), faults.Slack+1)
	for s := range 2 {
		l.Handled(s, both)
		l.Handled(s, twice)
	}
	l.Handled(1, twice)
	l.Handled(0, half)
	l.Handled(0, refused)

	require.Equal(t, faults.Totals{Sent: 7, Confirmed: 5, Handled: 6, Duplicated: 1, Lost: 2, Excused: 1, Late: 1}, l.Totals())
	require.Len(t, l.Late(), 1)
	require.Contains(t, l.Missing(), "event 3:")
	require.Contains(t, l.Missing(), "event 4:")
	require.Equal(t, 2, l.Settled())

	l.Handled(1, half)
	l.Handled(0, never)
	l.Handled(1, never)
	require.Zero(t, l.Totals().Lost)
	require.Empty(t, l.Missing())
}
