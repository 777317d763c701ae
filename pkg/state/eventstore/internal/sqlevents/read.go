package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"slices"

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
	if events, more, err = l.rows(ctx, r); err != nil {
		return nil, false, err
	}
	return l.unarchive(ctx, l.readers, events, more)
}

// rows are the events of a range, without what of them is in the archive.
func (l *log) rows(ctx context.Context, r eventstore.Range) (events []eventstore.Recorded, more bool, err error) {
	if !r.Dense || l.dialect.ByCategory == "" {
		text, args := l.query(r)
		return l.page(ctx, r.Limit, text, args, nil)
	}
	end := r.From + 4*int64(r.Limit)
	events, more, err = l.page(ctx, r.Limit, l.sql(selectDense), []any{r.Category, r.From, end, r.Limit}, nil)
	if err != nil || more {
		return events, more, err
	}
	r.From, r.Limit = end, r.Limit-len(events)
	text, args := l.query(r)
	rest, more, err := l.page(ctx, r.Limit, text, args, nil)
	return append(events, rest...), more, err
}

// page runs a query whose first columns are those of events. Where there are more of them, into is scanned too, before each is called.
func (l *log) page(ctx context.Context, limit int, text string, args []any, each func(e *eventstore.Recorded, first bool), into ...any) (events []eventstore.Recorded, more bool, err error) {
	var corrupt error
	err = l.db.Read(ctx, func(*sql.DB) (err error) {
		events, more = make([]eventstore.Recorded, 0, min(limit, 32)), false
		rows, err := l.queries.Query(ctx, text, args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		s := newScanner(rows, into...)
		for rows.Next() {
			if s.size > pageBytes {
				more = true
				return nil
			}
			if len(events) == cap(events) {
				events = slices.Grow(events, limit-len(events)) // there are many
			}
			events = append(events, eventstore.Recorded{})
			e := &events[len(events)-1]
			err := s.event(e)
			if errors.Is(err, state.ErrCorrupt) {
				corrupt = err
				return nil
			}
			if err != nil {
				return err
			}
			if each != nil {
				each(e, len(events) == 1)
			}
		}
		more = len(events) == limit
		return rows.Err()
	})
	if corrupt != nil {
		return nil, false, corrupt
	}
	return events, more, err
}

// selectDense reads a category of which most of the events are: in the order of the table, which needs no look from the index to it for each event. It ends
// at a position, so that few others are read where there are more of them after all.
const selectDense = "SELECT " + columns + " FROM {t} FORCE INDEX (PRIMARY) WHERE category = ? AND position >= ? AND position < ? ORDER BY position LIMIT ?"

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
