package sqlevents

import (
	"bytes"
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

// selectRestore has the snapshot's data beside its own event, which comes first, and not beside those behind it.
const selectRestore = "SELECT e.position, e.category, e.stream, e.version, e.event_id, e.type, e.schema_version, e.metadata, e.data, e.recorded_at," +
	" s.version, s.event_id, CASE WHEN e.version = s.version THEN s.data END" +
	" FROM {t}_snapshots s JOIN {t} e ON e.category = s.category AND e.stream = s.stream AND e.version >= s.version" +
	" WHERE s.category = ? AND s.stream = ? AND s.schema_version = ? ORDER BY e.version LIMIT ?"

// Restore is one query, so that an aggregate costs one round trip.
func (l *log) Restore(ctx context.Context, stream eventstore.StreamID, schema, limit int) (s eventstore.Snapshot, found bool, events []eventstore.Recorded, more bool, err error) {
	var version int64
	var id, data sql.RawBytes
	args := []any{stream.Category, stream.ID, schema, limit + 1}
	events, more, err = l.page(ctx, limit+1, l.sql(selectRestore), args, func(e *eventstore.Recorded, first bool) {
		if first {
			s = eventstore.Snapshot{Stream: stream, Schema: schema, Version: version, Data: bytes.Clone(data)}
			found = e.Version == version && textOf(id) == e.ID
			s.EventID = e.ID
		}
	}, &version, &id, &data)
	if err != nil || !found {
		return eventstore.Snapshot{}, false, nil, false, err
	}
	events, more, err = l.unarchive(ctx, l.readers, events, more)
	return s, true, events, more, err
}
