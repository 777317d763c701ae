package sqlevents

import (
	"context"
	"database/sql"
	"errors"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func (l *log) SaveSnapshot(ctx context.Context, s eventstore.Snapshot) error {
	const insert = "INSERT INTO {t}_snapshots (category, stream, schema_version, version, event_id, data) VALUES (?, ?, ?, ?, ?, ?)"
	stmt, err := l.prepared(ctx, statement{kind: insert + l.dialect.KeepNewer}) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return err
	}
	id, err := binary(s.EventID)
	if err != nil {
		return err
	}
	return l.db.Write(ctx, func(*sql.DB) error {
		_, err := stmt.ExecContext(ctx, s.Stream.Category, s.Stream.ID, s.Schema, s.Version, id, s.Data)
		return err
	})
}

func (l *log) LoadSnapshot(ctx context.Context, stream eventstore.StreamID, schema int) (s eventstore.Snapshot, found bool, err error) {
	s = eventstore.Snapshot{Stream: stream, Schema: schema}
	err = l.db.Read(ctx, func(*sql.DB) (err error) {
		const text = "SELECT version, event_id, data FROM {t}_snapshots WHERE category = ? AND stream = ? AND schema_version = ?"
		rows, err := l.queries.Query(ctx, l.sql(text), stream.Category, stream.ID, schema)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var id []byte
			if err := rows.Scan(&s.Version, &id, &s.Data); err != nil {
				return err
			}
			parsed, err := uuid.FromBytes(id)
			if err != nil {
				return err
			}
			s.EventID, found = parsed.String(), true
		}
		return rows.Err()
	})
	return s, found, err
}
