package sqlevents

import (
	"context"
	"database/sql"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func (l *log) Streams(ctx context.Context, category, after string, limit int) (all []eventstore.StreamVersion, err error) {
	// By the key of versions, which is read once for each stream.
	const text = "SELECT stream, MAX(version) FROM {t} WHERE category = ? AND stream > ? GROUP BY stream ORDER BY stream LIMIT ?"
	err = l.db.Read(ctx, func(*sql.DB) (err error) {
		all = nil
		rows, err := l.queries.Query(ctx, l.sql(text), category, after, limit)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			v := eventstore.StreamVersion{Stream: eventstore.StreamID{Category: category}}
			if err := rows.Scan(&v.Stream.ID, &v.Version); err != nil {
				return err
			}
			all = append(all, v)
		}
		return rows.Err()
	})
	return all, err
}
