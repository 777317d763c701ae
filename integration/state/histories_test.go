package state_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

// A server is killed in the middle of a history, or stopped for longer than a call waits. What it acknowledged explains what is read after,
// and each call that was not answered was made once, at any time after, or never.
func TestHistoriesOfAHarmedServer(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		server := servers.NewRedis(t, servers.RedisOptions{})
		harmed(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), server.Server)
	})
	t.Run("mysql", func(t *testing.T) {
		// Without a binary log InnoDB shows a change to others before it is on disk: what was read and not yet answered may go with the kill.
		server := servers.NewMySQL(t, servers.MySQLOptions{Args: withBinaryLog()})
		harmed(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}), server.Server)
	})
}

func harmed(t *testing.T, d state.Driver, server *servers.Server) {
	t.Run("killed", func(t *testing.T) {
		statetest.Histories(t, d, statetest.HistoryOptions{Calls: 200, ExpiryAtBegin: d.Backend() == "mysql", Harm: func(ctx context.Context) error {
			return errors.Join(server.Kill(), server.Restart(ctx))
		}})
	})
	t.Run("stopped", func(t *testing.T) {
		statetest.Histories(t, d, statetest.HistoryOptions{Calls: 200, ExpiryAtBegin: d.Backend() == "mysql", Harm: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2500*time.Millisecond) // longer than a call waits
			defer cancel()
			err := server.Pause()
			<-ctx.Done()
			return errors.Join(err, server.Resume())
		}})
	})
}
