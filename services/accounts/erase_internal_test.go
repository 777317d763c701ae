package accounts

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
)

// However many are due: what is deleted in an hour is no bound on what is erased in one.
func TestASweepErasesAllThatAreDue(t *testing.T) {
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: ListStore, Backend: "sqlite", Indexes: ListIndexes()}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, factory.Close()) }()
	log := memoryevents.New(eventstore.Config{})
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	s, err := New(Config{Log: log, Factory: factory, Bus: b, EraseAfter: -time.Hour}) // due before they are deleted
	require.NoError(t, err)

	const accounts = erasing + 5
	for range accounts {
		id := uuid.NewString()
		_, err := s.registerAccount(t.Context(), &accountsapi.RegisterAccountRequest{AccountID: id})
		require.NoError(t, err)
		_, err = s.deleteAccount(t.Context(), &accountsapi.DeleteAccountRequest{AccountID: id})
		require.NoError(t, err)
	}
	s.keepList(t.Context())
	set := s.projections.Load()
	defer func() { require.NoError(t, set.Close(context.Background())) }()
	head, err := log.Head(t.Context())
	require.NoError(t, err)
	_, err = set.Await(t.Context(), Listing, head)
	require.NoError(t, err)
	require.NoError(t, s.sweepOnce(t.Context()))
	erased := 0
	for e, err := range log.ReadCategory(t.Context(), category, eventstore.ReadOptions{}) {
		require.NoError(t, err)
		if e.Type == "erased" {
			erased++
		}
	}
	require.Equal(t, accounts, erased)
}
