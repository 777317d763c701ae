package migration_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/migration"
)

// The file holds one decision an item, and is replaced as a whole.
func TestDecisionsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "migration.json")
	f := migration.OpenFile(path)
	none, err := f.Read()
	require.NoError(t, err)
	require.Empty(t, none)
	accounts := migration.Decision{Kind: "store", Name: "accounts", Block: "state", To: "native", From: "dapr"}
	orders := migration.Decision{Kind: "service", Name: "orders", Block: "mesh", To: "native", From: "dapr"}
	require.NoError(t, f.Put(accounts, orders))
	accounts.To, accounts.From = "dapr", "native"
	require.NoError(t, f.Put(accounts))
	all, err := migration.OpenFile(path).Read()
	require.NoError(t, err)
	require.Equal(t, []migration.Decision{orders, accounts}, all)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside it")
}

// A file that is damaged, of another version, or says what cannot be, is refused, and is not written over.
func TestDamagedDecisionsAreRefused(t *testing.T) {
	for content, says := range map[string]string{
		`{"version":1,"decisions":[{"kind":"st`: "damaged",
		`{"version":2,"decisions":[]}`:          "version 2",
		`{"version":1,"decisions":[{"kind":"store","name":"a","block":"mesh","to":"native"}]}`:     "go together",
		`{"version":1,"decisions":[{"kind":"store","name":"a","block":"state","to":"somewhere"}]}`: "native or dapr",
		`{"version":1,"decisions":[{"kind":"service","name":"","block":"mesh","to":"native"}]}`:    "names nothing",
	} {
		path := filepath.Join(t.TempDir(), "migration.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		f := migration.OpenFile(path)
		_, err := f.Read()
		require.ErrorContains(t, err, says)
		require.Error(t, f.Put(migration.Decision{Kind: "store", Name: "b", Block: "state", To: "native"}))
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(after))
	}
}
