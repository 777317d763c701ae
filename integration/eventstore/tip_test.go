package eventstore_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
)

// A process that has appended the last event goes on behind it, as long as that is there.
func TestTip(t *testing.T) {
	eight := servers.NewMySQL8(t, servers.MySQLOptions{})
	for product, database := range map[string]func(t *testing.T) string{
		"mariadb": func(t *testing.T) string { return servers.MySQL(t).DSN },
		"mysql8":  func(t *testing.T) string { return eight.NewDatabase(t).DSN },
	} {
		for name, test := range map[string]func(t *testing.T, dsn string, db *sql.DB){"one statement": oneStatement, "tip is gone": tipIsGone} {
			t.Run(product+" "+name, func(t *testing.T) {
				dsn := database(t)
				db, err := sql.Open("mysql", dsn)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, db.Close()) })
				test(t, dsn, db)
			})
		}
	}
}

// Whatever is expected of streams that it knows, an append is one statement.
func oneStatement(t *testing.T, dsn string, db *sql.DB) {
	s := open(t, dsn, eventstore.Config{})
	executed := func() (n int) {
		var name string
		require.NoError(t, db.QueryRow("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'").Scan(&name, &n))
		return n
	}
	known, fresh := eventstore.StreamID{Category: "tip", ID: "known"}, eventstore.StreamID{Category: "tip", ID: "fresh"}
	round := func(version eventstore.Expected) {
		appendTo(t, s, known, version, 1)
		appendTo(t, s, known, eventstore.Any, 1)
		_, err := s.AppendAll(t.Context(), eventstore.Append{Stream: known, Expected: version + 2, Events: events(2)},
			eventstore.Append{Stream: fresh, Expected: eventstore.NoStream, Events: events(1)})
		require.NoError(t, err)
		fresh.ID += "er"
	}
	round(0)
	before := executed()
	round(4)
	require.Equal(t, 3, executed()-before)
	require.Len(t, eventstoretest.CheckOrder(t, s), 10)
}

// What a process knows of the end is not believed when the database was set back, or when another process has appended.
func tipIsGone(t *testing.T, dsn string, db *sql.DB) {
	s, other := open(t, dsn, eventstore.Config{}), open(t, dsn, eventstore.Config{})
	a, b := eventstore.StreamID{Category: "tip", ID: "a"}, eventstore.StreamID{Category: "tip", ID: "b"}
	appendTo(t, s, a, eventstore.NoStream, 3)
	_, err := db.Exec("DELETE FROM events WHERE position > 2")
	require.NoError(t, err)
	require.EqualValues(t, 3, appendTo(t, s, b, eventstore.NoStream, 1).Position)
	_, err = s.Append(t.Context(), a, 3, events(1)...)
	require.ErrorIs(t, err, state.ErrConflict)
	require.EqualValues(t, 3, appendTo(t, s, a, 2, 1).Version)

	_, err = db.Exec("DELETE FROM events WHERE position > 2")
	require.NoError(t, err)
	appendTo(t, other, b, eventstore.NoStream, 2) // in the place of what s has appended
	require.EqualValues(t, 5, appendTo(t, s, a, eventstore.Any, 1).Position)
	require.EqualValues(t, 6, appendTo(t, other, a, 3, 1).Position)
	require.EqualValues(t, 7, appendTo(t, s, b, 2, 1).Position)
	require.Len(t, eventstoretest.CheckOrder(t, s), 7)

	appendTo(t, s, b, 3, 1)
	appendTo(t, s, b, 4, 1) // has just seen that the tip is there
	_, err = db.Exec("DELETE FROM events WHERE position > 7")
	require.NoError(t, err)
	dropConnections(t, db) // as a server does that starts anew
	require.EqualValues(t, 8, appendTo(t, s, b, eventstore.Any, 1).Position)
	require.Len(t, eventstoretest.CheckOrder(t, s), 8)
}

// dropConnections kills those to the database but its own.
func dropConnections(t *testing.T, db *sql.DB) {
	t.Helper()
	db.SetMaxOpenConns(1)
	var ids []int64
	var id int64
	require.NoError(t, eachRow(db, "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()", nil, []any{&id}, func() error {
		ids = append(ids, id)
		return nil
	}))
	require.NotEmpty(t, ids)
	for _, id := range ids {
		_, err := db.Exec(fmt.Sprintf("KILL %d", id))
		require.NoError(t, err)
	}
}

func appendTo(t *testing.T, s *eventstore.Store, stream eventstore.StreamID, expected eventstore.Expected, n int) eventstore.Appended {
	t.Helper()
	appended, err := s.Append(t.Context(), stream, expected, events(n)...)
	require.NoError(t, err)
	return appended
}

func events(n int) []eventstore.Event {
	made := make([]eventstore.Event, n)
	for i := range made {
		made[i] = eventstore.Event{Type: "x", Data: jsontext.Value("1")}
	}
	return made
}
