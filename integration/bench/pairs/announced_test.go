package pairs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// BenchmarkAnnounced has saves that put an event into the outbox in their transaction. Beside them stands a transaction
// written by hand: the upsert, then a row with the same event in a table with nothing but an automatic id. In the second
// pair the same save of a store that announces nothing stands beside. Nobody empties the outbox meanwhile.
func BenchmarkAnnounced(b *testing.B) {
	b.Run("MySQL", func(b *testing.B) {
		server := servers.NewMySQL(b, servers.MySQLOptions{})
		driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
		require.NoError(b, err)
		told, silent, announce := openAnnounced(b, driver)
		db := openMySQL(b, server.DSN)
		_, err = db.ExecContext(b.Context(), "CREATE TABLE raw_outbox (id BIGINT AUTO_INCREMENT PRIMARY KEY, partition_key VARBINARY(255) NOT NULL,"+
			" topic VARBINARY(255) NOT NULL, properties LONGTEXT NOT NULL, body LONGBLOB NOT NULL, created_at DATETIME(6) NOT NULL)")
		require.NoError(b, err)
		raw := rawAnnounced{db: db, announce: announce}
		raw.write = prepare(b, db, "INSERT INTO state_entries (store, `key`, value, etag, version, created_at, updated_at)"+
			" VALUES (?, ?, ?, ?, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE"+
			" version = LAST_INSERT_ID(version + 1), value = VALUES(value), etag = VALUES(etag), updated_at = VALUES(updated_at)")
		raw.tell = prepare(b, db, "INSERT INTO raw_outbox (partition_key, topic, properties, body, created_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))")
		compareCalls(b, "save and event", []int{1, 64}, raw.save, saver(told))
		compareCalls(b, "save and event, beside a save alone", []int{1, 64}, saver(silent), saver(told))
	})
	b.Run("SQLite", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "bench.db")
		driver, err := sqlitestate.New(sqlitestate.Config{Path: path, Readers: sqliteReaders})
		require.NoError(b, err)
		told, silent, announce := openAnnounced(b, driver)
		db := openSQLite(b, path, 1, "busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-2048)")
		_, err = db.ExecContext(b.Context(), "CREATE TABLE raw_outbox (id INTEGER PRIMARY KEY, partition_key TEXT NOT NULL,"+
			" topic TEXT NOT NULL, properties TEXT NOT NULL, body BLOB NOT NULL, created_at INTEGER NOT NULL)")
		require.NoError(b, err)
		raw := rawAnnounced{db: db, announce: announce, sqlite: true}
		raw.write = prepare(b, db, "INSERT INTO state_entries (store, key, value, etag, version, created_at, updated_at)"+
			" VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5) ON CONFLICT (store, key) DO UPDATE SET value = ?3, etag = ?4, version = version + 1, updated_at = ?5")
		raw.tell = prepare(b, db, "INSERT INTO raw_outbox (partition_key, topic, properties, body, created_at) VALUES (?, ?, ?, ?, ?)")
		compareCalls(b, "save and event", []int{1, 16}, raw.save, saver(told))
		compareCalls(b, "save and event, beside a save alone", []int{1, 16}, saver(silent), saver(told))
	})
}

// openAnnounced opens a store that announces its changes as a node does, and one that does not.
func openAnnounced(b *testing.B, d state.Driver) (told, silent *state.Store[account], announce *state.Announce) {
	announcements := statesvc.NewAnnouncements(statesvc.AnnouncementsConfig{Source: "bench",
		Outbox: state.OutboxConfig{Name: "bench", MaxEntries: 1 << 40, MaxBytes: 1 << 50}})
	options := announcements.Options(state.Options{})
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: storeName, Backend: d.Backend(), PublishChanges: true}, {Name: "silent", Backend: d.Backend()},
	}, []state.Driver{d}, options)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, factory.Close()) })
	told, err = state.Open[account](b.Context(), factory, storeName)
	require.NoError(b, err)
	silent, err = state.Open[account](b.Context(), factory, "silent")
	require.NoError(b, err)
	saveAccounts(b, told)
	saveAccounts(b, silent)
	return told, silent, options.Announce
}

type rawAnnounced struct {
	db          *sql.DB
	write, tell *sql.Stmt
	announce    *state.Announce
	sqlite      bool
}

func (r rawAnnounced) save(ctx context.Context, caller int) error {
	value, err := json.Marshal(newAccount(caller))
	if err != nil {
		return err
	}
	etag := rand.Text()
	e, err := r.announce.Entry(ctx, state.Changed{Store: "accounts", Key: accountKey(caller), Operation: state.OperationSave, ETag: etag})
	if err != nil {
		return err
	}
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	args, told := []any{"raw", accountKey(caller), string(value), etag}, []any{e.Key, e.Topic, string(e.Properties), e.Body}
	if r.sqlite {
		now := time.Now().UnixMicro()
		args, told = append(args, now), append(told, now)
	}
	if _, err := tx.StmtContext(ctx, r.write).ExecContext(ctx, args...); err != nil {
		return err
	}
	if _, err := tx.StmtContext(ctx, r.tell).ExecContext(ctx, told...); err != nil {
		return err
	}
	return tx.Commit()
}
