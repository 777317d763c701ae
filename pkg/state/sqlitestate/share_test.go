package sqlitestate_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Those who write at the same time, to whichever stores, share transactions, and nobody fails for a neighbour's sake: not
// for a value that SQLite cannot read, not for a condition that does not hold.
func TestShares(t *testing.T) {
	d := open(t)
	stores := []state.Engine{openStore(t, d, "a"), openStore(t, d, "b")}
	save(t, stores[0], state.Change{Key: "there", Value: []byte("1"), Expiry: state.Keep})
	const callers, rounds = 32, 10
	var wait sync.WaitGroup
	for caller := range callers {
		wait.Go(func() {
			for round := range rounds {
				c := state.Change{Key: fmt.Sprint(caller, " ", round), Value: []byte("1"), Expiry: state.Keep}
				e := stores[caller%2]
				switch caller {
				case 3:
					c.Value = []byte(strings.Repeat("[", 2001) + strings.Repeat("]", 2001))
				case 4:
					c.Key, c.When = "there", state.IfAbsent
				}
				outcomes, err := e.Apply(t.Context(), []state.Change{c})
				switch {
				case caller == 3:
					if !errors.Is(err, state.ErrInvalid) {
						t.Error(err)
					}
				case err != nil:
					t.Error(err)
				case outcomes[0].Conflict != (caller == 4) || outcomes[0].Done != (caller != 4):
					t.Errorf("caller %d: %+v", caller, outcomes[0])
				}
			}
		})
	}
	wait.Wait()
	n := int64(0)
	for _, e := range stores {
		kept, err := e.Len(t.Context())
		require.NoError(t, err)
		n += kept
	}
	require.EqualValues(t, 1+(callers-2)*rounds, n)
}

// Another process that holds the file takes no caller's time beyond the deadline, and what was not written is said so.
func TestFileIsHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	e := openStore(t, openAt(t, path), "s")
	other, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	other.SetMaxOpenConns(1)
	_, err = other.Exec("BEGIN IMMEDIATE")
	require.NoError(t, err)
	var wait sync.WaitGroup
	errs := make([]error, 4)
	begun := time.Now()
	for i := range errs {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, errs[i] = e.Apply(ctx, []state.Change{{Key: fmt.Sprint(i), Value: []byte("1"), Expiry: state.Keep}})
		})
	}
	wait.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
	}
	require.Less(t, time.Since(begun), 4*time.Second) // not with the five of SQLite's busy timeout
	_, err = other.Exec("ROLLBACK")
	require.NoError(t, err)
	save(t, e, state.Change{Key: "k", Value: []byte("1"), Expiry: state.Keep})
	n, err := e.Len(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}
