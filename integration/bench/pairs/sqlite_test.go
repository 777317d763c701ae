package pairs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"path/filepath"
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

	compareCalls(b, "get", []int{1, 16}, raw.get, getter(store))
	compareCalls(b, "save", []int{1, 16}, raw.save, saver(store))
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
