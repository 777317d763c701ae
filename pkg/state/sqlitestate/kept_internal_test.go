package sqlitestate

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// More statements are asked than are kept, by many at once: each has its own answer, also when its statement is dropped and prepared
// again, and with values of each type.
func TestKeptStatements(t *testing.T) {
	db, err := openReaders(filepath.Join(t.TempDir(), "test.db"), url.Values{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	db.SetMaxOpenConns(4)
	ask := func(ctx context.Context, text, n int) error {
		rows := 0
		err := sqlstate.Read(ctx, db, fmt.Sprintf("SELECT ?, 'k%d', NULL, CAST(? AS BLOB), ? UNION ALL SELECT 1, 2, 3, 4, 5", text), []any{n, "v", 0.5}, func(row []driver.Value) error {
			if rows++; rows == 1 {
				if row[0] != int64(n) || row[1] != fmt.Sprint("k", text) || row[2] != nil || string(row[3].([]byte)) != "v" || row[4] != 0.5 {
					return fmt.Errorf("%d of %d: %v", n, text, row)
				}
			}
			return nil
		})
		if err == nil && rows != 2 {
			err = fmt.Errorf("%d rows", rows)
		}
		return err
	}
	var wait sync.WaitGroup
	failures := make([]error, 8)
	for caller := range failures {
		wait.Go(func() {
			for i := range 500 {
				failures[caller] = errors.Join(failures[caller], ask(t.Context(), (caller+i)%50, i), ask(t.Context(), i%5, i))
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(failures...))

	none := func([]driver.Value) error { return nil }
	for range 3 {
		require.ErrorContains(t, sqlstate.Read(t.Context(), db, "SELECT nothing", nil, none), "nothing", "asked again, it says the same")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, ask(ended, 1, 1), context.Canceled)
	enough := errors.New("enough")
	require.ErrorIs(t, sqlstate.Read(t.Context(), db, "SELECT 1", nil, func([]driver.Value) error { return enough }), enough)
	require.NoError(t, ask(t.Context(), 1, 1))
}

// A context that ends in the midst of a statement ends the statement, and the connection is good for others.
func TestReadEndsWithItsContext(t *testing.T) {
	db, err := openReaders(filepath.Join(t.TempDir(), "test.db"), url.Values{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	db.SetMaxOpenConns(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rows := 0
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
	err = sqlstate.Read(ctx, db, endless, nil, func([]driver.Value) error {
		if rows++; rows == 100 {
			cancel()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 100, rows)
	require.NoError(t, sqlstate.Read(t.Context(), db, "SELECT 1", nil, func([]driver.Value) error { rows++; return nil }))
	require.Equal(t, 101, rows)
}

// A row of which a column is not what the table says is told as corrupt, and names the key.
func TestDamagedRow(t *testing.T) {
	_, err := recordOf([]driver.Value{"k", []byte("1"), "e", "one", int64(1), int64(1), nil})
	require.ErrorIs(t, err, state.ErrCorrupt)
	require.ErrorContains(t, err, `"k"`)
	r, err := recordOf([]driver.Value{"k", []byte(strings.Repeat("1", 3)), "e", int64(2), int64(1_500_000), int64(3_000_000), int64(4_000_000)})
	require.NoError(t, err)
	require.Equal(t, int64(1500), r.CreatedAt.UnixMilli())
	require.Equal(t, int64(4), r.ExpiresAt.Unix())
}
