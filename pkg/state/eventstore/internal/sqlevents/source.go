package sqlevents

import (
	"context"
	"database/sql"
)

// A source runs fn with what makes queries: the log's readers, or a step. Who has a step reads nothing beside it: it would wait for a second connection
// while it keeps the first, and those who do are stuck as soon as they have all connections.
type source func(ctx context.Context, fn func(q querier) error) error

type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// readers is the source outside of steps.
func (l *log) readers(ctx context.Context, fn func(q querier) error) error {
	return l.db.Read(ctx, func(db *sql.DB) error { return fn(db) })
}

// reading is the source that a step is.
func (s *step) reading(_ context.Context, fn func(q querier) error) error { return s.note(fn(s.tx)) }
