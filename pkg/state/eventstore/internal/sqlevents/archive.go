package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// An event whose data is in the archive has none in its row, where JSON is never empty. The row stays: it has the event's position, version and id.

// archiveStep is how many events are moved in one transaction.
const archiveStep = 200

func (l *log) Archive(ctx context.Context, stream eventstore.StreamID, below int64) (moved int64, err error) {
	const those = " WHERE category = ? AND stream = ? AND version >= ? AND version < ? AND LENGTH(data) > 0"
	for from := int64(1); from < below; from += archiveStep {
		args := []any{stream.Category, stream.ID, from, min(from+archiveStep, below)}
		var n int64
		err := l.db.Transact(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, l.sql("INSERT INTO {t}_archive (position, metadata, data) SELECT position, metadata, data FROM {t}"+those), args...); err != nil {
				return err
			}
			result, err := tx.ExecContext(ctx, l.sql("UPDATE {t} SET metadata = '{}', data = ''"+those), args...)
			if err != nil {
				return err
			}
			n, err = result.RowsAffected()
			return err
		})
		if err != nil {
			return moved, err
		}
		moved += n
	}
	return moved, nil
}

// unarchive gives events of a page that are in the archive what is theirs. It returns fewer events where they would be more than a page.
func (l *log) unarchive(ctx context.Context, from source, events []eventstore.Recorded, more bool) ([]eventstore.Recorded, bool, error) {
	size := 0
	archived := map[int64]int{}
	var ask []any
	for i := range events {
		if size += len(events[i].Data); len(events[i].Data) == 0 {
			archived[events[i].Position] = i
			ask = append(ask, events[i].Position)
		}
	}
	for len(ask) > 0 {
		part := ask[:min(len(ask), archiveStep)]
		ask = ask[len(part):]
		n, err := l.fetch(ctx, from, events, archived, part)
		if err != nil {
			return nil, false, err
		}
		if size += n; size > pageBytes && len(ask) > 0 {
			next, _ := ask[0].(int64)
			return events[:archived[next]], true, nil
		}
	}
	return events, more, nil
}

func (l *log) fetch(ctx context.Context, from source, events []eventstore.Recorded, at map[int64]int, positions []any) (size int, err error) {
	query := sqlstate.SQL(l.sql("SELECT position, metadata, data FROM {t}_archive WHERE position IN (@)"), sqlstate.Binds(positions))
	found := 0
	var corrupt error
	err = from(ctx, func(q querier) (err error) {
		found, size = 0, 0
		rows, err := q.QueryContext(ctx, query.Text, query.Args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var position int64
			var metadata, data []byte
			if err := rows.Scan(&position, &metadata, &data); err != nil {
				return err
			}
			e := &events[at[position]]
			e.Data = data
			if err := json.Unmarshal(metadata, &e.Metadata); err != nil {
				corrupt = fmt.Errorf("%w: the metadata of position %d in the archive: %w", state.ErrCorrupt, position, err)
			}
			found, size = found+1, size+len(data)
		}
		return rows.Err()
	})
	if err == nil && corrupt == nil && found < len(positions) {
		corrupt = fmt.Errorf("%w: the archive lacks %d of %d events that are said to be in it", state.ErrCorrupt, len(positions)-found, len(positions))
	}
	return size, errors.Join(err, corrupt)
}
