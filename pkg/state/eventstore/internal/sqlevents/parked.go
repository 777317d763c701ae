package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func (l *log) Park(ctx context.Context, lease eventstore.Lease, p eventstore.Parked) error {
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		result, err := tx.ExecContext(ctx, l.sql("UPDATE {t}_parked SET version = ?, failure = ?, released = 0 WHERE name = ? AND category = ? AND stream = ?"),
			p.Version, p.Failure, lease.Name, p.Stream.Category, p.Stream.ID)
		if err != nil {
			return nil, err
		}
		if n, err := result.RowsAffected(); err != nil {
			return nil, err
		} else if n == 0 {
			_, err := tx.ExecContext(ctx, l.now("INSERT INTO {t}_parked (name, category, stream, part, version, failure, parked_at, released) VALUES (?, ?, ?, ?, ?, ?, @, 0)"),
				lease.Name, p.Stream.Category, p.Stream.ID, lease.Part, p.Version, p.Failure)
			if err != nil {
				return nil, err
			}
		}
		if refused, err := l.held(ctx, tx, lease); refused != nil || err != nil {
			return refused, err
		}
		return l.there(ctx, tx, eventstore.Advance{Scope: eventstore.Range{Category: p.Stream.Category, ID: p.Stream.ID}, After: p.Version - 1,
			Read: []eventstore.Place{{At: p.Version, ID: p.EventID}}})
	})
}

func (l *log) Parked(ctx context.Context, name string) (all []eventstore.Parked, err error) {
	err = l.db.Read(ctx, func(db *sql.DB) (err error) {
		all = nil
		rows, err := db.QueryContext(ctx, l.sql("SELECT category, stream, part, version, failure, parked_at, released FROM {t}_parked WHERE name = ? ORDER BY parked_at, category, stream"), name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var p eventstore.Parked
			var at int64
			if err := rows.Scan(&p.Stream.Category, &p.Stream.ID, &p.Part, &p.Version, &p.Failure, &at, &p.Released); err != nil {
				return err
			}
			p.At = time.UnixMicro(at).UTC()
			all = append(all, p)
		}
		return rows.Err()
	})
	return all, err
}

func (l *log) Unpark(ctx context.Context, name string, stream eventstore.StreamID, skip bool) (found bool, err error) {
	further := 0
	if skip {
		further = 1
	}
	err = l.db.Transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, l.sql("UPDATE {t}_parked SET version = version + ? * (1 - released), released = 1 WHERE name = ? AND category = ? AND stream = ?"),
			further, name, stream.Category, stream.ID)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		found = n > 0
		return err
	})
	return found, err
}

func (l *log) Replayed(ctx context.Context, lease eventstore.Lease, stream eventstore.StreamID, next int64, done bool, within func(*sql.Tx) error) error {
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		if within != nil {
			if refused := within(tx); refused != nil {
				return refused, nil
			}
		}
		if done {
			_, err = tx.ExecContext(ctx, l.sql("DELETE FROM {t}_parked WHERE name = ? AND category = ? AND stream = ?"), lease.Name, stream.Category, stream.ID)
		} else {
			_, err = tx.ExecContext(ctx, l.sql("UPDATE {t}_parked SET version = ? WHERE name = ? AND category = ? AND stream = ?"),
				next, lease.Name, stream.Category, stream.ID)
		}
		if err != nil {
			return nil, err
		}
		return l.held(ctx, tx, lease)
	})
}
