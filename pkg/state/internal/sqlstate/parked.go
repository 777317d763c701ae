package sqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func (o *outbox) Parked(ctx context.Context, after int64, most int) (entries []state.ParkedEntry, err error) {
	if most <= 0 {
		return nil, o.failure("list parked entries", fmt.Errorf("%w: %d entries were asked for", state.ErrInvalid, most))
	}
	err = o.engine.Read(ctx, func(db *sql.DB) (err error) {
		rows, err := db.QueryContext(ctx, `SELECT id, partition_key, topic, properties, body, created_at, attempts, parked_at, COALESCE(failure, '')
			FROM outbox WHERE name = ? AND parked_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?`, o.cfg.Name, after, most)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var e state.ParkedEntry
			var created, parked int64
			if err := rows.Scan(&e.ID, &e.Key, &e.Topic, &e.Properties, &e.Body, &created, &e.Attempts, &parked, &e.Reason); err != nil {
				return err
			}
			e.CreatedAt, e.ParkedAt = time.UnixMicro(created).UTC(), time.UnixMicro(parked).UTC()
			entries = append(entries, e)
		}
		return rows.Err()
	})
	return entries, o.failure("list parked entries", err)
}

func (o *outbox) Unpark(ctx context.Context, ids ...int64) (int64, error) {
	n, err := o.eachParked(ctx, ids, func(tx *sql.Tx, which Expr) error {
		set := SQL("UPDATE outbox SET parked_at = NULL, failure = NULL, attempts = 0 WHERE @", which)
		_, err := tx.ExecContext(ctx, set.Text, set.Args...)
		return err
	}, 1)
	return n, o.failure("have parked entries wait again", err)
}

func (o *outbox) Discard(ctx context.Context, ids ...int64) (int64, error) {
	n, err := o.eachParked(ctx, ids, func(tx *sql.Tx, which Expr) error {
		remove := SQL("DELETE FROM outbox WHERE @", which)
		_, err := tx.ExecContext(ctx, remove.Text, remove.Args...)
		return err
	}, 0)
	return n, o.failure("discard parked entries", err)
}

// eachParked changes the parked entries with these ids, or all, takes them out of the count of parked ones, and adds them
// times so often to those that wait.
func (o *outbox) eachParked(ctx context.Context, ids []int64, change func(tx *sql.Tx, which Expr) error, times int64) (total int64, err error) {
	parked := SQL("name = @ AND parked_at IS NOT NULL", Bind(o.cfg.Name))
	some := func(which Expr) error {
		n := int64(0)
		err := o.change(ctx, func(tx *sql.Tx, _ *turn) error {
			var size int64
			query := SQL("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM outbox WHERE @", which)
			if err := tx.QueryRowContext(ctx, query.Text, query.Args...).Scan(&n, &size); err != nil {
				return err
			}
			if err := change(tx, which); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "UPDATE outbox_turn SET parked = parked - ?, entries = entries + ?, bytes = bytes + ? WHERE name = ?",
				n, n*times, size*times, o.cfg.Name)
			return err
		})
		if err == nil {
			total += n
		}
		return err
	}
	if len(ids) == 0 {
		return total, some(parked)
	}
	err = inParts(ids, func(part []int64) error { return some(SQL("@ AND id IN (@)", parked, Binds(part))) })
	return total, err
}
