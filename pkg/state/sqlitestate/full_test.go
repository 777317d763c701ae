package sqlitestate

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A file that cannot grow: what does not fit is refused for certain, and when it can grow again, so can the outbox.
func TestOutboxWithoutSpace(t *testing.T) {
	d, err := New(Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	box, err := d.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 1000, MaxBytes: 1 << 30})
	require.NoError(t, err)
	entry := state.OutboxEntry{Topic: "t", Properties: []byte("{}"), Body: make([]byte, 10<<10)}
	_, err = d.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 40")
	require.NoError(t, err)
	kept := int64(0)
	for ; err == nil && kept < 100; kept++ {
		err = box.Enqueue(t.Context(), entry)
	}
	kept--
	require.ErrorIs(t, err, state.ErrNoSpace)
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
	stats, err := box.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, kept, stats.Depth)
	_, err = d.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 4000")
	require.NoError(t, err)
	require.NoError(t, box.Enqueue(t.Context(), entry))
}
