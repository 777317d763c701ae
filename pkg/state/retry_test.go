package state_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func TestRetryOnConflict(t *testing.T) {
	lost := fmt.Errorf("save: %w", state.ErrConflict)
	other := errors.New("the disk is full")
	for name, c := range map[string]struct {
		results []error
		want    error
		runs    int
	}{
		"won at once":       {[]error{nil}, nil, 1},
		"won after two":     {[]error{lost, lost, nil}, nil, 3},
		"something else":    {[]error{lost, other}, other, 2},
		"lost all the time": {[]error{lost}, lost, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runs := 0
				err := state.RetryOnConflict(t.Context(), func() error {
					runs++
					return c.results[min(runs, len(c.results))-1]
				})
				require.Equal(t, c.want, err)
				require.Equal(t, c.runs, runs)
			})
		})
	}
}

func TestRetryOnConflictEndsWithItsContext(t *testing.T) {
	stopped := errors.New("the node is closing")
	ctx, cancel := context.WithCancelCause(t.Context())
	runs := 0
	err := state.RetryOnConflict(ctx, func() error {
		if runs++; runs == 2 {
			cancel(stopped)
		}
		return state.ErrConflict
	})
	require.ErrorIs(t, err, stopped)
	require.ErrorIs(t, err, state.ErrConflict)
	require.Less(t, runs, 20)
}
