package eventstore_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	schemas "github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// What a schema in events/schemas marks with x-personal is encrypted in a log that has events of its type, with a key of the subject that the schema
// names: it does not reach the database in the clear, and is gone when the subject is erased.
func TestMembersThatASchemaMarks(t *testing.T) {
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "events.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	db, err := sql.Open("sqlite", "file:"+driver.Path())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	log, err := sqliteevents.Open(t.Context(), driver, eventstore.Config{})
	require.NoError(t, err)
	types, err := eventstore.NewTypes(eventstore.TypeOf[schemas.AccountCreatedEvent]("account.created", 1))
	require.NoError(t, err)
	created := func(account string) schemas.AccountCreatedEvent {
		return schemas.AccountCreatedEvent{AccountID: account, Email: "ada@example.org", DisplayName: "Ada", Roles: []string{"user"}}
	}
	stream := eventstore.StreamID{Category: "welcomed", ID: "today"}
	for _, account := range []string{"a-1", "a-2"} {
		event, err := types.Event(created(account))
		require.NoError(t, err)
		_, err = log.Append(t.Context(), stream, eventstore.Any, event)
		require.NoError(t, err)
	}
	read := func() (found []schemas.AccountCreatedEvent) {
		for e, err := range log.ReadStream(t.Context(), stream, eventstore.ReadOptions{}) {
			require.NoError(t, err)
			value, err := types.Decode(e)
			require.NoError(t, err)
			found = append(found, value.(schemas.AccountCreatedEvent))
		}
		return found
	}
	require.Equal(t, []schemas.AccountCreatedEvent{created("a-1"), created("a-2")}, read())
	var stored string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(data) FROM events").Scan(&stored))
	require.Contains(t, stored, "a-1")
	require.NotContains(t, stored, "ada@example.org")

	erased, err := log.Erase(t.Context(), "a-1")
	require.NoError(t, err)
	require.True(t, erased)
	require.Equal(t, []schemas.AccountCreatedEvent{{AccountID: "a-1", Roles: []string{"user"}}, created("a-2")}, read())
}
