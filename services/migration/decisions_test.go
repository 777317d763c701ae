package migration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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
	require.Len(t, entries, 2, "nothing is left beside it but the file of its lock")
}

// Nodes that share the file may decide at the same moment, and none takes away what another has decided.
func TestDecisionsOfManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "migration.json")
	var nodes sync.WaitGroup
	const many = 20
	for n := range many {
		nodes.Go(func() { // each opens it anew, as a process of its own does
			assert.NoError(t, migration.OpenFile(path).Put(migration.Decision{Kind: "store", Name: fmt.Sprint(n), Block: "state", To: "native", From: "dapr"}))
		})
	}
	nodes.Wait()
	all, err := migration.OpenFile(path).Read()
	require.NoError(t, err)
	require.Len(t, all, many)
}

// Who has told of a decision says so of that one: what another process decides at the same moment stands, and is still to be told.
func TestToldIsOfOneDecision(t *testing.T) {
	path := filepath.Join(t.TempDir(), "migration.json")
	at := time.Unix(1_000_000, 0).UTC()
	old := migration.Decision{Kind: "store", Name: "accounts", Block: "state", To: "native", From: "dapr", At: at}
	require.NoError(t, migration.OpenFile(path).Put(old))
	for range 20 {
		young := old
		young.At, young.To, young.From = old.At.Add(time.Second), old.From, old.To
		var both sync.WaitGroup
		both.Go(func() { assert.NoError(t, migration.OpenFile(path).MarkTold(old)) })
		both.Go(func() { assert.NoError(t, migration.OpenFile(path).Put(young)) })
		both.Wait()
		all, err := migration.OpenFile(path).Read()
		require.NoError(t, err)
		require.Equal(t, []migration.Decision{young}, all)
		old = young
	}
	require.NoError(t, migration.OpenFile(path).MarkTold(old))
	old.Told = true
	all, err := migration.OpenFile(path).Read()
	require.NoError(t, err)
	require.Equal(t, []migration.Decision{old}, all)
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
