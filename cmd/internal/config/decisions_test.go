package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/services/migration"
)

// decided resolves settings of a node on Dapr over decisions that were made.
func decided(t *testing.T, change func(c *config.Config), made ...migration.Decision) *config.Config {
	t.Helper()
	yes := true
	c := &config.Config{DataDir: t.TempDir(), Services: []string{"all"}, Listen: "127.0.0.1:3600", AppID: "bannou", Messaging: config.Messaging{RabbitMQURLs: []string{"amqp://localhost"}}}
	c.Dapr.Enabled = &yes
	if change != nil {
		change(c)
	}
	require.NoError(t, migration.OpenFile(c.DecisionFile()).Put(made...))
	require.NoError(t, c.ReadDecisions())
	require.NoError(t, c.ResolveBackends())
	return c
}

func store(name, to string) migration.Decision {
	return migration.Decision{Kind: "store", Name: name, Block: "state", To: to, From: "dapr"}
}

// Decisions choose where no setting does, each for its item alone.
func TestDecisionsChoose(t *testing.T) {
	c := decided(t, nil, store("accounts", "native"),
		migration.Decision{Kind: "service", Name: "orders", Block: "messaging", To: "native"}, migration.Decision{Kind: "service", Name: "stock", Block: "mesh", To: "native"})
	require.Equal(t, "native", c.StateOn("accounts"))
	require.Equal(t, "dapr", c.StateOn("others"))
	require.Equal(t, "native", c.MessagingOn("orders"))
	require.Equal(t, "dapr", c.MeshOn("orders"))
	require.Equal(t, "native", c.MeshOn("stock"))
	require.Empty(t, c.Overruled())
	item := c.ItemOf("store", "state", "accounts")
	require.Empty(t, item.Setting)
	require.Equal(t, [2]string{"native", "dapr"}, [2]string{item.Running, item.Rest})
}

// Settings win, whether they name the item or say it for all, and what they overrule is said.
func TestSettingsOverruleDecisions(t *testing.T) {
	c := decided(t, func(c *config.Config) { c.State.Backend = "dapr" }, store("accounts", "native"))
	require.Equal(t, "dapr", c.StateOn("accounts"), "everything goes back by one setting")
	require.Len(t, c.Overruled(), 1)
	require.Contains(t, c.Overruled()[0], "BANNOU_STATE_BACKEND puts all on dapr")
	require.Equal(t, "BANNOU_STATE_BACKEND", c.ItemOf("store", "state", "accounts").Setting)

	t.Setenv("BANNOU_STATE_BACKEND_ACCOUNTS", "dapr")
	c = decided(t, nil, store("accounts", "native"), store("auth", "native"))
	require.Equal(t, "dapr", c.StateOn("accounts"))
	require.Equal(t, "native", c.StateOn("auth"))
	require.Contains(t, c.Overruled()[0], "BANNOU_STATE_BACKEND_ACCOUNTS says dapr")

	c = decided(t, func(c *config.Config) { c.UseNativeState = "false" }, store("auth", "native"))
	require.Equal(t, "dapr", c.StateOn("auth"))
	require.Contains(t, c.Overruled()[0], "BANNOU_USE_NATIVE_STATE")
}

// Without Dapr no decision brings it back.
func TestNoDaprOverrulesDecisions(t *testing.T) {
	t.Setenv("BANNOU_STATE_BACKEND_ACCOUNTS", "")
	no := false
	c := decided(t, func(c *config.Config) { c.Dapr.Enabled = &no }, store("auth", "dapr"), store("accounts", "native"))
	require.Equal(t, "native", c.StateOn("auth"))
	require.Len(t, c.Overruled(), 1)
	require.Contains(t, c.Overruled()[0], "BANNOU_DAPR_ENABLED is false")
}

// Half a file of decisions keeps a node from starting.
func TestDamagedDecisionsAreAnError(t *testing.T) {
	c := &config.Config{DataDir: t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(c.DataDir, "migration.json"), []byte("{"), 0o600))
	require.ErrorContains(t, c.ReadDecisions(), "migration.json is damaged")
}
