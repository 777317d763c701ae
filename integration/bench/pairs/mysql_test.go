package pairs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

const mysqlConnections = 32

// BenchmarkMySQL has prepared statements on the driver's own table beside it, in a pool of the same size. The server
// flushes its log at each commit. The statement of the raw query knows that number and level are numbers; the filter's
// finds that out, row by row.
func BenchmarkMySQL(b *testing.B) {
	server := servers.NewMySQL(b, servers.MySQLOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	store, err := state.OpenQueryable[account](b.Context(), newFactory(b, driver), storeName)
	require.NoError(b, err)
	saveAccounts(b, store.Store)
	raw := prepareMySQL(b, server.DSN)

	compareCalls(b, "get", stateCallers, raw.get, getter(store.Store))
	compareCalls(b, "save", stateCallers, raw.save, saver(store.Store))
	compareCalls(b, "query 1000 for a sorted page of 20", stateCallers, raw.find, finder(store, pageQuery(b)))
}

// BenchmarkMySQLIndexed has the members that queries look for in an index, on both sides: ours as the store declares them,
// the raw one as generated columns for numbers and an index over them, which the statements are told to use. Both sides
// have a table of their own with the same values.
func BenchmarkMySQLIndexed(b *testing.B) {
	server := servers.NewMySQL(b, servers.MySQLOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	store, err := state.OpenQueryable[account](b.Context(), newFactory(b, driver, "level", "number"), storeName)
	require.NoError(b, err)
	saveAccounts(b, store.Store)
	require.Eventually(b, func() bool { return len(store.Indexed()) == 2 }, patience, time.Millisecond)
	db := openMySQL(b, server.DSN)
	for _, statement := range []string{
		"CREATE TABLE raw_entries LIKE state_entries", "INSERT INTO raw_entries (store, `key`, value, etag, version, created_at, updated_at, expires_at)" +
			" SELECT store, `key`, value, etag, version, created_at, updated_at, expires_at FROM state_entries",
		"ALTER TABLE raw_entries ADD COLUMN level INT AS (JSON_VALUE(value, '$.level')) VIRTUAL, ADD COLUMN number INT AS (JSON_VALUE(value, '$.number')) VIRTUAL",
		"ALTER TABLE raw_entries ADD INDEX raw_level (store, level), ADD INDEX raw_number (store, number)",
	} {
		_, err := db.ExecContext(b.Context(), statement)
		require.NoError(b, err)
	}
	const selectLive = "SELECT value, etag, version, created_at, updated_at, expires_at FROM raw_entries FORCE INDEX (raw_level)" +
		" WHERE store = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)) AND level = ?"
	raw := rawMySQL{query: prepare(b, db, selectLive+" ORDER BY number DESC LIMIT ?")}
	one := rawMySQL{query: prepare(b, db, strings.ReplaceAll(selectLive, "level", "number")+" LIMIT ?")}

	compareCalls(b, "find one by an index", stateCallers, func(ctx context.Context, caller int) error {
		return checkOne(one.matching(ctx, caller, 1))(caller)
	}, oneFinder(store))
	compareCalls(b, "find 50 by an index for a sorted page of 20", stateCallers, raw.find, finder(store, pageQuery(b)))
}

type rawMySQL struct{ read, write, query *sql.Stmt }

func openMySQL(b *testing.B, dsn string) *sql.DB {
	config, err := mysql.ParseDSN(dsn)
	require.NoError(b, err)
	config.ParseTime = true
	connector, err := mysql.NewConnector(config)
	require.NoError(b, err)
	db := sql.OpenDB(connector)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	db.SetMaxOpenConns(mysqlConnections)
	db.SetMaxIdleConns(mysqlConnections)
	return db
}

func prepareMySQL(b *testing.B, dsn string) rawMySQL {
	db := openMySQL(b, dsn)
	const selectLive = "SELECT value, etag, version, created_at, updated_at, expires_at FROM state_entries" +
		" WHERE store = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)) AND "
	return rawMySQL{
		read: prepare(b, db, selectLive+"`key` = ?"),
		write: prepare(b, db, "INSERT INTO state_entries (store, `key`, value, etag, version, created_at, updated_at)"+
			" VALUES (?, ?, ?, ?, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE"+
			" version = LAST_INSERT_ID(version + 1), value = VALUES(value), etag = VALUES(etag), updated_at = VALUES(updated_at)"),
		query: prepare(b, db, selectLive+"JSON_EXTRACT(value, '$.level') = ? ORDER BY JSON_EXTRACT(value, '$.number') + 0 DESC LIMIT ?"),
	}
}

func prepare(b *testing.B, db *sql.DB, text string) *sql.Stmt {
	statement, err := db.PrepareContext(b.Context(), text)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, statement.Close()) })
	return statement
}

// row is what a statement of the raw side reads.
type row struct {
	value            []byte
	etag             string
	version          int64
	created, updated time.Time
	expires          sql.Null[time.Time]
}

func (r *row) columns() []any {
	return []any{&r.value, &r.etag, &r.version, &r.created, &r.updated, &r.expires}
}

func (r rawMySQL) get(ctx context.Context, caller int) error {
	var got row
	if err := r.read.QueryRowContext(ctx, storeName, accountKey(caller)).Scan(got.columns()...); err != nil {
		return err
	}
	return checkJSON(got.value, caller)
}

func (r rawMySQL) save(ctx context.Context, caller int) error {
	value, err := json.Marshal(newAccount(caller))
	if err != nil {
		return err
	}
	result, err := r.write.ExecContext(ctx, storeName, accountKey(caller), string(value), rand.Text())
	if err != nil {
		return err
	}
	_, err = result.LastInsertId() // the version
	return err
}

func (r rawMySQL) find(ctx context.Context, _ int) error {
	found, err := r.matching(ctx, level, pageSize)
	if err != nil {
		return err
	}
	return checkPage(found)
}

// matching reads what the query finds for a number.
func (r rawMySQL) matching(ctx context.Context, number, most int) ([]account, error) {
	rows, err := r.query.QueryContext(ctx, storeName, number, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []account
	for rows.Next() {
		var got row
		if err := rows.Scan(got.columns()...); err != nil {
			return nil, err
		}
		var a account
		if err := json.Unmarshal(got.value, &a); err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, rows.Err()
}
