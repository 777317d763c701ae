// Package sqliteevents keeps a log of events in a SQLite file, beside the stores of a sqlitestate.Driver.
package sqliteevents

import (
	"context"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/internal/sqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// Open returns the log of a driver's file, and makes its tables when they are absent. The log lasts as long as the driver.
func Open(ctx context.Context, driver *sqlitestate.Driver, cfg eventstore.Config) (*eventstore.Store, error) {
	if cfg.Table == "" {
		cfg.Table = eventstore.DefaultTable
	}
	db, err := driver.Database(ctx, cfg.Table, migrations)
	if err != nil {
		return nil, fmt.Errorf("eventstore: open %q: %w", cfg.Table, err)
	}
	return eventstore.New(sqlevents.New(db, cfg.Table, sqlevents.Dialect{
		Local: true,
		KeepNewer: " ON CONFLICT (category, stream, schema_version) DO UPDATE SET version = excluded.version, event_id = excluded.event_id," +
			" data = excluded.data WHERE excluded.version > version",
		InsertNew: "INSERT OR IGNORE",
		Prolong:   " ON CONFLICT (name, consumer) DO UPDATE SET until = excluded.until",
	}), cfg), nil
}

// migrations are the statements that make the tables, oldest first; released ones never change. Instants are microseconds since 1970.
func migrations(table string) [][]string {
	return [][]string{{
		`CREATE TABLE IF NOT EXISTS ` + table + ` (
			position       INTEGER NOT NULL PRIMARY KEY,
			category       TEXT    NOT NULL,
			stream         TEXT    NOT NULL,
			version        INTEGER NOT NULL,
			event_id       BLOB    NOT NULL UNIQUE,
			type           TEXT    NOT NULL,
			schema_version INTEGER NOT NULL,
			metadata       BLOB    NOT NULL,
			data           BLOB    NOT NULL,
			recorded_at    INTEGER NOT NULL,
			UNIQUE (category, stream, version)
		)`,
		`CREATE INDEX IF NOT EXISTS ` + table + `_category ON ` + table + ` (category, position)`,
		`CREATE TABLE IF NOT EXISTS ` + table + `_snapshots (
			category       TEXT    NOT NULL,
			stream         TEXT    NOT NULL,
			schema_version INTEGER NOT NULL,
			version        INTEGER NOT NULL,
			event_id       BLOB    NOT NULL,
			data           BLOB    NOT NULL,
			PRIMARY KEY (category, stream, schema_version)
		)`,
		`CREATE TABLE IF NOT EXISTS ` + table + `_positions (
			name     TEXT    NOT NULL,
			part     INTEGER NOT NULL,
			parts    INTEGER NOT NULL,
			position INTEGER NOT NULL,
			token    INTEGER NOT NULL,
			consumer TEXT    NOT NULL,
			until    INTEGER NOT NULL,
			PRIMARY KEY (name, part)
		)`,
		`CREATE TABLE IF NOT EXISTS ` + table + `_consumers (
			name     TEXT    NOT NULL,
			consumer TEXT    NOT NULL,
			until    INTEGER NOT NULL,
			PRIMARY KEY (name, consumer)
		)`,
		`CREATE TABLE IF NOT EXISTS ` + table + `_parked (
			name      TEXT    NOT NULL,
			category  TEXT    NOT NULL,
			stream    TEXT    NOT NULL,
			part      INTEGER NOT NULL,
			version   INTEGER NOT NULL,
			failure   TEXT    NOT NULL,
			parked_at INTEGER NOT NULL,
			released  INTEGER NOT NULL,
			PRIMARY KEY (name, category, stream)
		)`,
	}, {
		`CREATE TABLE IF NOT EXISTS ` + table + `_projections (name TEXT NOT NULL PRIMARY KEY, entry BLOB NOT NULL)`,
	}, {
		`CREATE TABLE IF NOT EXISTS ` + table + `_keys (
			key_id     BLOB    NOT NULL PRIMARY KEY,
			subject    TEXT    NOT NULL UNIQUE,
			master     TEXT    NOT NULL,
			wrapped    BLOB    NOT NULL,
			created_at INTEGER NOT NULL
		)`,
		`CREATE TABLE IF NOT EXISTS ` + table + `_archive (
			position INTEGER NOT NULL PRIMARY KEY,
			metadata BLOB    NOT NULL,
			data     BLOB    NOT NULL
		)`,
	}, {
		`CREATE TABLE IF NOT EXISTS ` + table + `_destroyed (key_id BLOB NOT NULL PRIMARY KEY, destroyed_at INTEGER NOT NULL)`,
	}}
}
