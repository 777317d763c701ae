package sqlevents

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

const (
	// One event alone. Its version is right, or it meets the unique key of its stream. That the version before it exists is looked for by the key,
	// and not compared in a condition with the highest there is: MySQL 8 was seen to take what such a statement was first executed with for what it
	// was given the next time.
	insertSingle = "INSERT INTO {t} (" + columns + ") SELECT LAST_INSERT_ID(p.next), ?, ?, "
	singleValues = ", ?, ?, ?, ?, ?, {now} FROM (SELECT COALESCE(MAX(position), 0) + 1 AS next FROM {t}) p"

	insertNew    = insertSingle + "1" + singleValues
	insertBehind = insertSingle + "s.version + 1" + singleValues + ", {t} s WHERE s.category = ? AND s.stream = ? AND s.version = ?"
	insertAny    = insertSingle + "s.version + 1" + singleValues + ", (SELECT COALESCE(MAX(version), 0) AS version FROM {t} WHERE category = ? AND stream = ?) s"
)

// single appends one event with one statement. Nil: the version before it does not exist.
func (l *log) single(ctx context.Context, a eventstore.Append) (*eventstore.Appended, error) {
	args := append(make([]any, 0, 10), a.Stream.Category, a.Stream.ID)
	args, err := valuesOf(args, &a.Events[0])
	if err != nil {
		return nil, err
	}
	var text string
	switch a.Expected {
	case eventstore.NoStream:
		text = insertNew
	case eventstore.Any:
		text = insertAny
		args = append(args, a.Stream.Category, a.Stream.ID)
	default:
		text = insertBehind
		args = append(args, a.Stream.Category, a.Stream.ID, int64(a.Expected))
	}
	stmt, err := l.prepared(ctx, statement{kind: text})
	if err != nil {
		return nil, err
	}
	appended := eventstore.Appended{Stream: a.Stream, Version: int64(a.Expected) + 1}
	var rows int64
	err = l.db.Write(ctx, func(*sql.DB) error {
		result, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return err
		}
		if rows, err = result.RowsAffected(); err != nil {
			return err
		}
		appended.Position, err = result.LastInsertId()
		return err
	})
	if err != nil || rows == 0 {
		return nil, err
	}
	if a.Expected == eventstore.Any {
		if appended.Version, err = l.versionAt(ctx, appended.Position); err != nil {
			return nil, fmt.Errorf("%w: the event was appended, and its version cannot be read: %w", state.ErrOutcomeUnknown, err)
		}
	}
	return &appended, nil
}

func (l *log) versionAt(ctx context.Context, position int64) (version int64, err error) {
	err = l.db.Read(ctx, func(*sql.DB) error {
		rows, err := l.queries.Query(ctx, l.sql("SELECT version FROM {t} WHERE position = ?"), position) //nolint:rowserrcheck // Number does
		if err != nil {
			return err
		}
		version, err = sqlstate.Number(rows)
		return err
	})
	return version, err
}
