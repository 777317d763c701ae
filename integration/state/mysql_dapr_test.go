package state_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

// inDaprsTable is a driver whose stores are all in Dapr's rows: each has an app of its name.
type inDaprsTable struct{ state.Driver }

func (d inDaprsTable) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	cfg.KeyPrefix, cfg.TableName, cfg.Indexes = cfg.Name+"||", "state", nil
	return d.Driver.Open(ctx, cfg)
}

// The conformance suite in the rows of Dapr's state.mysql, on both servers: on MariaDB their JSON is text, on MySQL a type of its own.
func TestDaprsTable(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) state.Driver { return inDaprsTable{openMySQL(t)} }
	statetest.Run(t, open, statetest.Features{Query: true, QueryRounds: 1, AnyKeys: true, ExpiryAtBegin: true, Depth: mariaDBDepth, WholeSeconds: true})
}

func TestDaprsTableOnMySQL8(t *testing.T) {
	t.Parallel()
	server := servers.NewMySQL8(t, servers.MySQLOptions{})
	open := func(t *testing.T) state.Driver { return inDaprsTable{openDSN(t, server.NewDatabase(t).DSN)} }
	statetest.Run(t, open, statetest.Features{Query: true, QueryRounds: 1, AnyKeys: true, ExpiryAtBegin: true, Rewrites: true, WholeSeconds: true})
	require.False(t, t.Failed())
}
