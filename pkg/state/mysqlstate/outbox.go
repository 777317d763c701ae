package mysqlstate

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ state.Announcer = (*Driver)(nil)

// nowMicros is the microseconds since 1970, by the server's clock.
const nowMicros = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"

// OpenOutbox names an outbox; its tables are made by the first operation that reaches the server.
func (d *Driver) OpenOutbox(_ context.Context, cfg state.OutboxConfig) (state.Outbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := d.outboxTables()
	return sqlstate.NewOutbox(sqlstate.OutboxEngine{
		Own:      isOwn,
		Transact: t.transact,
		Read:     t.read,
		Now:      nowMicros,
		Beside:   true,
		Workers:  d.workers,
	}, cfg), nil
}

func (d *Driver) outboxTables() *tables {
	return &tables{db: d.db, turn: d.turn, name: sqlstate.OutboxTable, migrations: outboxMigrations}
}

// outboxMigrations are the statements that make the tables, oldest first; released ones never change. Names and keys are
// bytes, so that nothing but the same is the same. Instants are microseconds since 1970, by the server's clock.
func outboxMigrations(string, bool) [][]string {
	return [][]string{{
		"CREATE TABLE IF NOT EXISTS outbox (" +
			"name VARBINARY(255) NOT NULL," +
			"id BIGINT NOT NULL," +
			"partition_key VARBINARY(255) NOT NULL," +
			"topic VARBINARY(255) NOT NULL," +
			"properties LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL," +
			"body LONGBLOB NOT NULL," +
			"size BIGINT NOT NULL," +
			"created_at BIGINT NOT NULL," +
			"claimed_by VARBINARY(64) NULL," +
			"claimed_until BIGINT NULL," +
			"attempts INT NOT NULL," +
			"parked_at BIGINT NULL," +
			"failure TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL," +
			"PRIMARY KEY (name, id)," +
			"KEY outbox_keys (name, partition_key, claimed_until)" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
		"CREATE TABLE IF NOT EXISTS outbox_turn (" +
			"name VARBINARY(255) NOT NULL PRIMARY KEY," +
			"turns BIGINT NOT NULL," +
			"last_id BIGINT NOT NULL," +
			"entries BIGINT NOT NULL," +
			"bytes BIGINT NOT NULL," +
			"parked BIGINT NOT NULL" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
	}}
}
