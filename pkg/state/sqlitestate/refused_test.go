package sqlitestate

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// What a caller refuses in its transaction is not said to be the file's fault, which would be waited for. What is the file's fault is.
func TestOutboxTransactionRefused(t *testing.T) {
	d, err := New(Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	box, err := d.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 1000, MaxBytes: 1 << 30})
	require.NoError(t, err)
	refused := errors.New("the account is empty")
	err = box.Transact(t.Context(), func(*sql.Tx) ([]state.OutboxEntry, error) { return nil, refused })
	require.ErrorIs(t, err, refused)
	require.NotErrorIs(t, err, state.ErrUnavailable)
	err = box.Transact(t.Context(), func(tx *sql.Tx) ([]state.OutboxEntry, error) {
		_, err := tx.ExecContext(t.Context(), "CREATE TABLE large AS SELECT zeroblob(1000000) AS b")
		return nil, err
	})
	require.NoError(t, err)
	_, err = d.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 1")
	require.NoError(t, err)
	err = box.Transact(t.Context(), func(tx *sql.Tx) ([]state.OutboxEntry, error) {
		_, err := tx.ExecContext(t.Context(), "INSERT INTO large (b) VALUES (zeroblob(1000000))")
		return nil, err
	})
	require.ErrorIs(t, err, state.ErrUnavailable)
}
