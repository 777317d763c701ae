package state_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// corruptMySQL changes a row behind the driver's back, past the table's check.
func corruptMySQL(t *testing.T, d state.Driver, store, key, text string) {
	t.Helper()
	db, err := sql.Open("mysql", d.(onMySQL).dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	uncheck(t, conn)
	// Text that is no UTF-8 is then cut where it is none, which leaves no JSON either.
	_, err = conn.ExecContext(t.Context(), "SET SESSION sql_mode = ''")
	require.NoError(t, err)
	result, err := conn.ExecContext(t.Context(), "UPDATE state_entries SET value = ? WHERE store = ? AND `key` = ?", text, store, key)
	require.NoError(t, err)
	n, err := result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// uncheck ends the checks of constraints: MariaDB's for the session, MySQL's for the table.
func uncheck(t *testing.T, conn *sql.Conn) {
	t.Helper()
	if _, err := conn.ExecContext(context.WithoutCancel(t.Context()), "SET SESSION check_constraint_checks = 0"); err == nil {
		return
	}
	_, err := conn.ExecContext(t.Context(), "ALTER TABLE state_entries DROP CHECK state_entries_chk_1")
	const gone = 3821 // by an earlier call
	if refused := new(mysql.MySQLError); !errors.As(err, &refused) || refused.Number != gone {
		require.NoError(t, err)
	}
}

// countRows counts the rows that are in the table, seen or not.
func countRows(t *testing.T, dsn string) int {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var n int
	require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM state_entries").Scan(&n))
	return n
}
