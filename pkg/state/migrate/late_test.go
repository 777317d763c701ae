package migrate

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A change that a node began in one phase, and that the place makes in the next, is not lost when the decision moves after that.
func TestChangeThatOutlivesItsPhaseIsNotLost(t *testing.T) {
	t.Parallel()
	// setup returns a migration, and a node of its store whose next change waits in the old place until it is let go.
	setup := func(t *testing.T) (m *Migration, late func() (letGo func())) {
		from, to := drivers(t)
		a := &hookedDriver{Driver: from}
		m = openMemory(t, a, to, Options{})
		put(t, m.from.engine, "k", "1")
		node := &engine{store: "s", guard: &guard{from: m.from, to: m.to, looking: make(chan struct{}, 1)}}
		return m, func() func() {
			waits, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			var once sync.Once
			a.apply = func([]state.Change) error {
				once.Do(func() {
					close(waits)
					<-gate
				})
				return nil
			}
			go func() {
				_, err := node.Apply(context.WithoutCancel(t.Context()), []state.Change{{Key: "k", Value: []byte("2"), Expiry: state.Never}})
				done <- err
			}()
			<-waits
			return func() {
				close(gate)
				require.ErrorIs(t, <-done, state.ErrOutcomeUnknown)
				require.Equal(t, "2", value(t, m.from.engine, "k"))
			}
		}
	}
	t.Run("source to mirror", func(t *testing.T) {
		t.Parallel()
		m, late := setup(t)
		letGo := late()
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		letGo()
		require.NoError(t, m.CutOver(t.Context()))
		require.Equal(t, "2", value(t, m.to.engine, "k"))
	})
	t.Run("mirror to target and back", func(t *testing.T) {
		t.Parallel()
		m, late := setup(t)
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		letGo := late()
		require.NoError(t, m.CutOver(t.Context()))
		letGo()
		_, err = m.Back(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.CutOver(t.Context()))
		require.Equal(t, "2", value(t, m.to.engine, "k"))
	})
	t.Run("done, and the other way round", func(t *testing.T) {
		t.Parallel()
		m, _ := setup(t)
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.CutOver(t.Context()))
		require.NoError(t, m.Finish(t.Context()))
		v := &view{record: record{Phase: Done}, from: m.from, to: m.to}
		back := openMemory(t, m.o.To.Driver, m.o.From.Driver, Options{Overwrite: true})
		_, err = back.Copy(t.Context())
		require.NoError(t, err)
		put(t, m.to.engine, "k", "2")
		require.NoError(t, v.owe(t.Context(), intent{}))
		require.NoError(t, back.CutOver(t.Context()))
		require.Equal(t, "2", value(t, back.to.engine, "k"))
	})
}
