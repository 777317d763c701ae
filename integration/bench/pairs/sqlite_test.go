package pairs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

const sqliteReaders = 4

// BenchmarkSQLite has prepared statements on the driver's own file beside it: one connection that writes, four that
// read, the same pragmas. Each save is flushed to the disk before it is acknowledged.
func BenchmarkSQLite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "bench.db")
	driver, err := sqlitestate.New(sqlitestate.Config{Path: path, Readers: sqliteReaders})
	require.NoError(b, err)
	store, err := state.Open[account](b.Context(), newFactory(b, driver), storeName)
	require.NoError(b, err)
	saveAccounts(b, store)
	raw := prepareSQLite(b, path)

	compareCalls(b, "get", stateCallers, raw.get, getter(store))
	compareCalls(b, "save", stateCallers, raw.save, saver(store))
}

// BenchmarkSQLiteIndexed has the members that queries look for in an index, on both sides: ours as the store declares them, the
// raw one on expressions for numbers. Both sides have a file of their own with the same values.
func BenchmarkSQLiteIndexed(b *testing.B) {
	path := filepath.Join(b.TempDir(), "bench.db")
	driver, err := sqlitestate.New(sqlitestate.Config{Path: path, Readers: sqliteReaders})
	require.NoError(b, err)
	store, err := state.OpenQueryable[account](b.Context(), newFactory(b, driver, "level", "number"), storeName)
	require.NoError(b, err)
	saveAccounts(b, store.Store)
	require.Eventually(b, func() bool { return len(store.Indexed()) == 2 }, patience, time.Millisecond)
	raw := filepath.Join(b.TempDir(), "raw.db")
	writer := openSQLite(b, raw, 1, "journal_mode(WAL)")
	for _, statement := range []string{
		"ATTACH " + sqlText(path) + " AS ours",
		"CREATE TABLE raw_entries AS SELECT * FROM ours.state_entries",
		"CREATE INDEX raw_level ON raw_entries (store, value ->> '$.level')", "CREATE INDEX raw_number ON raw_entries (store, value ->> '$.number')",
	} {
		_, err := writer.ExecContext(b.Context(), statement)
		require.NoError(b, err)
	}
	reader := openSQLite(b, raw, sqliteReaders, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)")
	const selectLive = "SELECT value, etag, version, created_at, updated_at, expires_at FROM raw_entries WHERE store = ? AND (expires_at IS NULL OR expires_at > ?)"
	one := rawSQLiteQuery{prepare(b, reader, selectLive+" AND value ->> '$.number' = ? LIMIT ?")}
	page := rawSQLiteQuery{prepare(b, reader, selectLive+" AND value ->> '$.level' = ? ORDER BY value ->> '$.number' DESC LIMIT ?")}

	compareCalls(b, "find one by an index", stateCallers, func(ctx context.Context, caller int) error {
		return checkOne(one.matching(ctx, caller, 1))(caller)
	}, oneFinder(store))
	compareCalls(b, "find 50 by an index for a sorted page of 20", stateCallers, func(ctx context.Context, _ int) error {
		found, err := page.matching(ctx, level, pageSize)
		if err != nil {
			return err
		}
		return checkPage(found)
	}, finder(store, pageQuery(b)))
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

type rawSQLiteQuery struct{ statement *sql.Stmt }

func (r rawSQLiteQuery) matching(ctx context.Context, number, most int) ([]account, error) {
	rows, err := r.statement.QueryContext(ctx, storeName, time.Now().UnixMicro(), number, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []account
	for rows.Next() {
		var value []byte
		var etag string
		var version, created, updated int64
		var expires sql.NullInt64
		if err := rows.Scan(&value, &etag, &version, &created, &updated, &expires); err != nil {
			return nil, err
		}
		var a account
		if err := json.Unmarshal(value, &a); err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, rows.Err()
}

type rawSQLite struct{ read, write *sql.Stmt }

func prepareSQLite(b *testing.B, path string) rawSQLite {
	writer := openSQLite(b, path, 1, "busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-2048)")
	reader := openSQLite(b, path, sqliteReaders, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)")
	return rawSQLite{
		read: prepare(b, reader, "SELECT value, etag, version, created_at, updated_at, expires_at FROM state_entries"+
			" WHERE store = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)"),
		write: prepare(b, writer, "INSERT INTO state_entries (store, key, value, etag, version, created_at, updated_at)"+
			" VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5) ON CONFLICT (store, key) DO UPDATE SET"+
			" value = ?3, etag = ?4, version = version + 1, updated_at = ?5 RETURNING version"),
	}
}

func openSQLite(b *testing.B, path string, connections int, pragmas ...string) *sql.DB {
	address := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	db, err := sql.Open("sqlite", address.String())
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

func (r rawSQLite) get(ctx context.Context, caller int) error {
	var value []byte
	var etag string
	var version, created, updated int64
	var expires sql.NullInt64
	err := r.read.QueryRowContext(ctx, storeName, accountKey(caller), time.Now().UnixMicro()).
		Scan(&value, &etag, &version, &created, &updated, &expires)
	if err != nil {
		return err
	}
	return checkJSON(value, caller)
}

func (r rawSQLite) save(ctx context.Context, caller int) error {
	value, err := json.Marshal(newAccount(caller))
	if err != nil {
		return err
	}
	var version int64
	return r.write.QueryRowContext(ctx, storeName, accountKey(caller), string(value), rand.Text(), time.Now().UnixMicro()).Scan(&version)
}
