package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

func (l *log) Head(ctx context.Context) (head int64, err error) {
	err = l.db.Read(ctx, func(*sql.DB) error {
		rows, err := l.queries.Query(ctx, l.sql("SELECT COALESCE(MAX(position), 0) FROM {t}")) //nolint:rowserrcheck // Number does
		if err != nil {
			return err
		}
		head, err = sqlstate.Number(rows)
		return err
	})
	return head, err
}

// pageBytes is how much of events' data a page holds at most, beyond its first event.
const pageBytes = 4 << 20

func (l *log) Read(ctx context.Context, r eventstore.Range) (events []eventstore.Recorded, more bool, err error) {
	text, args := l.query(r)
	var corrupt error
	err = l.db.Read(ctx, func(*sql.DB) (err error) {
		events, more = make([]eventstore.Recorded, 0, min(r.Limit, 64)), false
		rows, err := l.queries.Query(ctx, text, args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for size := 0; rows.Next(); {
			if size > pageBytes {
				more = true
				return nil
			}
			e, err := scan(rows)
			if errors.Is(err, state.ErrCorrupt) {
				corrupt = err
				return nil
			}
			if err != nil {
				return err
			}
			size += len(e.Data)
			events = append(events, e)
		}
		more = len(events) == r.Limit
		return rows.Err()
	})
	if corrupt != nil {
		return nil, false, corrupt
	}
	return events, more, err
}

func (l *log) query(r eventstore.Range) (text string, args []any) {
	text = "SELECT " + columns + " FROM {t}"
	if r.ID == "" && r.Category != "" {
		text += l.dialect.ByCategory
	}
	text += " WHERE "
	by := "position"
	switch {
	case r.ID != "":
		by = "version"
		text += "category = ? AND stream = ? AND "
		args = append(args, r.Category, r.ID)
	case r.Category != "":
		text += "category = ? AND "
		args = append(args, r.Category)
	}
	from := r.From
	switch {
	case !r.Backward:
		text += by + " >= ? ORDER BY " + by + " LIMIT ?"
	default:
		if from == 0 {
			from = 1<<63 - 1
		}
		text += by + " <= ? ORDER BY " + by + " DESC LIMIT ?"
	}
	return l.sql(text), append(args, from, r.Limit)
}

func scan(rows *sql.Rows) (e eventstore.Recorded, err error) {
	var id, metadata, data sql.RawBytes
	var recorded int64
	if err := rows.Scan(&e.Position, &e.Stream.Category, &e.Stream.ID, &e.Version, &id, &e.Type, &e.Schema, &metadata, &data, &recorded); err != nil {
		return e, err
	}
	e.Data = append(e.Data, data...)
	e.RecordedAt = time.UnixMicro(recorded).UTC()
	parsed, err := uuid.FromBytes(id)
	if err == nil && string(metadata) != "{}" {
		err = json.Unmarshal(metadata, &e.Metadata)
	}
	if err != nil {
		return e, fmt.Errorf("%w: version %d of stream %s, position %d: %w", state.ErrCorrupt, e.Version, e.Stream, e.Position, err)
	}
	e.ID = parsed.String()
	return e, nil
}
