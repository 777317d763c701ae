package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Few statements are kept and many are asked, by many at once: each has its own answer, also when its statement is dropped
// meanwhile, and after the end.
func TestPreparedQueries(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "test.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	db.SetMaxOpenConns(4)
	p := sqlstate.NewPrepared(db, 3, nil)
	ask := func(ctx context.Context, text, n int) error {
		rows, err := p.Query(ctx, fmt.Sprintf("SELECT %d + ?", text), n) //nolint:rowserrcheck // Number asks for it
		if err != nil {
			return err
		}
		got, err := sqlstate.Number(rows)
		if err == nil && got != int64(text+n) {
			err = fmt.Errorf("%d + %d is not %d", text, n, got)
		}
		return err
	}
	var wait sync.WaitGroup
	failures := make([]error, 8)
	for caller := range failures {
		wait.Go(func() {
			for i := range 500 {
				failures[caller] = errors.Join(failures[caller], ask(t.Context(), (caller*i)%7, i))
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(failures...))

	_, err = p.Query(t.Context(), "SELECT nothing") //nolint:rowserrcheck,sqlclosecheck // there are none
	require.ErrorContains(t, err, "nothing")
	_, err = p.Query(t.Context(), "SELECT nothing") //nolint:rowserrcheck,sqlclosecheck // there are none
	require.ErrorContains(t, err, "nothing", "asked again, it says the same")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, ask(ended, 1, 1), context.Canceled)
	p.Close()
	require.NoError(t, ask(t.Context(), 1, 1))
	require.NoError(t, ask(t.Context(), 1, 1))
	require.NoError(t, ask(t.Context(), 1, 1))
}
