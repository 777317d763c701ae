package state_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMySQLOutbox(t *testing.T) {
	statetest.RunOutbox(t, func(t *testing.T) func(t *testing.T) state.OutboxDriver {
		dsn := servers.MySQL(t).DSN
		return func(t *testing.T) state.OutboxDriver { return newMySQL(t, mysqlstate.Config{DSN: dsn}) }
	})
}

func TestMySQLAnnounced(t *testing.T) {
	statetest.RunAnnounced(t, func(t *testing.T) func(t *testing.T) state.Announcer {
		dsn := servers.MySQL(t).DSN
		return func(t *testing.T) state.Announcer { return newMySQL(t, mysqlstate.Config{DSN: dsn}) }
	})
}

// What was acknowledged is there after the server was killed, and while it is away nothing is acknowledged.
func TestMySQLOutboxSurvivesAKill(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	box, err := newMySQL(t, mysqlstate.Config{DSN: server.DSN}).OpenOutbox(t.Context(),
		state.OutboxConfig{Name: "box", MaxEntries: 1000, MaxBytes: 1 << 20})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, box.Enqueue(t.Context(), state.OutboxEntry{Key: "k", Topic: "t", Properties: []byte("{}"), Body: []byte("1")}))
	}
	_, err = box.Claim(t.Context(), state.OutboxClaim{Owner: "dead", Lease: time.Second, MaxEntries: 5})
	require.NoError(t, err)
	require.NoError(t, server.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, box.Enqueue(ctx, state.OutboxEntry{Topic: "t", Properties: []byte("{}")}), state.ErrUnavailable)
	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool {
		entries, err := box.Claim(t.Context(), state.OutboxClaim{Owner: "heir", Lease: time.Minute, MaxEntries: 100})
		return err == nil && len(entries) == 10
	}, patience, 20*time.Millisecond)
}

// Those who add at the same time share a transaction, and nobody's event fails because a neighbour's is more than the
// server takes.
func TestMySQLOutboxFailsAlone(t *testing.T) {
	box, err := newMySQL(t, mysqlstate.Config{DSN: servers.MySQL(t).DSN}).OpenOutbox(t.Context(),
		state.OutboxConfig{Name: "box", MaxEntries: 1000, MaxBytes: 1 << 30})
	require.NoError(t, err)
	const callers = 32
	failures := make([]error, callers)
	var wait sync.WaitGroup
	for c := range callers {
		wait.Go(func() {
			e := state.OutboxEntry{Topic: "t", Properties: []byte("{}"), Body: fmt.Append(nil, c)}
			if c == callers/2 {
				e.Body = make([]byte, 20<<20)
			}
			failures[c] = box.Enqueue(t.Context(), e)
		})
	}
	wait.Wait()
	for c, err := range failures {
		if c == callers/2 {
			require.Error(t, err)
		} else {
			require.NoError(t, err)
		}
	}
	stats, err := box.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, callers-1, stats.Depth)
}
