// Package mysqlevents keeps a log of events in a MySQL or MariaDB database, beside the stores of a mysqlstate.Driver.
package mysqlevents

import (
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/internal/sqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// Open returns the log of a driver's database. It does not wait for the server: the tables are made by the first operation that reaches
// it. The log lasts as long as the driver.
func Open(driver *mysqlstate.Driver, cfg eventstore.Config) (*eventstore.Store, error) {
	if cfg.Table == "" {
		cfg.Table = eventstore.DefaultTable
	}
	db, err := driver.Database(cfg.Table, migrations)
	if err != nil {
		return nil, fmt.Errorf("eventstore: open %q: %w", cfg.Table, err)
	}
	return eventstore.New(sqlevents.New(db, cfg.Table, sqlevents.Dialect{
		Turn: "SELECT id FROM {t}_turn FOR UPDATE",
		// The assignments are made from left to right, and see those before them: the version is compared until it is set last.
		KeepNewer: " ON DUPLICATE KEY UPDATE event_id = IF(VALUES(version) > version, VALUES(event_id), event_id)," +
			" data = IF(VALUES(version) > version, VALUES(data), data), version = GREATEST(VALUES(version), version)",
		ByCategory: " FORCE INDEX ({t}_category)",
		Prolong:    " ON DUPLICATE KEY UPDATE until = VALUES(until)",
		Lock:       " FOR UPDATE",
		Share:      " LOCK IN SHARE MODE",
		InsertNew:  "INSERT IGNORE",
	}), cfg), nil
}

// migrations are the statements that make the tables, oldest first; released ones never change. Names and ids are bytes, so that nothing
// but the same is the same. Instants are microseconds since 1970, by the server's clock.
func migrations(table string, _ bool) [][]string {
	const engine = ") ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
	return [][]string{{
		"CREATE TABLE IF NOT EXISTS " + table + " (" +
			"position BIGINT NOT NULL PRIMARY KEY," +
			"category VARBINARY(64) NOT NULL," +
			"stream VARBINARY(255) NOT NULL," +
			"version BIGINT NOT NULL," +
			"event_id BINARY(16) NOT NULL," +
			"type VARBINARY(128) NOT NULL," +
			"schema_version INT NOT NULL," +
			"metadata BLOB NOT NULL," +
			"data LONGBLOB NOT NULL," +
			"recorded_at BIGINT NOT NULL," +
			"UNIQUE KEY " + table + "_stream (category, stream, version)," +
			"UNIQUE KEY " + table + "_event (event_id)," +
			"KEY " + table + "_category (category, position)" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_turn (id INT NOT NULL PRIMARY KEY" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_snapshots (" +
			"category VARBINARY(64) NOT NULL," +
			"stream VARBINARY(255) NOT NULL," +
			"schema_version INT NOT NULL," +
			"version BIGINT NOT NULL," +
			"event_id BINARY(16) NOT NULL," +
			"data LONGBLOB NOT NULL," +
			"PRIMARY KEY (category, stream, schema_version)" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_positions (" +
			"name VARBINARY(255) NOT NULL," +
			"part INT NOT NULL," +
			"parts INT NOT NULL," +
			"position BIGINT NOT NULL," +
			"token BIGINT NOT NULL," +
			"consumer VARBINARY(64) NOT NULL," +
			"until BIGINT NOT NULL," +
			"PRIMARY KEY (name, part)" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_consumers (" +
			"name VARBINARY(255) NOT NULL," +
			"consumer VARBINARY(64) NOT NULL," +
			"until BIGINT NOT NULL," +
			"PRIMARY KEY (name, consumer)" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_parked (" +
			"name VARBINARY(255) NOT NULL," +
			"category VARBINARY(64) NOT NULL," +
			"stream VARBINARY(255) NOT NULL," +
			"part INT NOT NULL," +
			"version BIGINT NOT NULL," +
			"failure BLOB NOT NULL," +
			"parked_at BIGINT NOT NULL," +
			"released INT NOT NULL," +
			"PRIMARY KEY (name, category, stream)" + engine,
		"INSERT IGNORE INTO " + table + "_turn (id) VALUES (1)",
	}, {
		"CREATE TABLE IF NOT EXISTS " + table + "_projections (name VARBINARY(255) NOT NULL PRIMARY KEY, entry LONGBLOB NOT NULL" + engine,
	}, {
		"CREATE TABLE IF NOT EXISTS " + table + "_keys (" +
			"key_id BINARY(16) NOT NULL PRIMARY KEY," +
			"subject VARBINARY(320) NOT NULL," +
			"master VARBINARY(64) NOT NULL," +
			"wrapped VARBINARY(255) NOT NULL," +
			"created_at BIGINT NOT NULL," +
			"UNIQUE KEY " + table + "_keys_subject (subject)" + engine,
		"CREATE TABLE IF NOT EXISTS " + table + "_archive (" +
			"position BIGINT NOT NULL PRIMARY KEY," +
			"metadata BLOB NOT NULL," +
			"data LONGBLOB NOT NULL" + engine,
	}, {
		"CREATE TABLE IF NOT EXISTS " + table + "_destroyed (key_id BINARY(16) NOT NULL PRIMARY KEY, destroyed_at BIGINT NOT NULL" + engine,
	}}
}
